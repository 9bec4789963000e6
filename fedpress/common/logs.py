"""Logging: the loggers of fedpress and of flwr, and their handlers."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

LOGGER, FLOWER = "fedpress", "flwr"  # names of loggers
LEVELS: Mapping[str, int] = MappingProxyType({LOGGER: logging.INFO, FLOWER: logging.INFO})
_FORMAT = "%(asctime)s %(levelname)s %(message)s"


def send_logs(handler: logging.Handler, levels: Mapping[str, int] = LEVELS, *, times: str | None = None) -> None:
    """Make `handler` the only handler of the loggers, until another is set.

    Parameters
    ----------
    handler : logging.Handler
        The handler; its formatter is set.
    levels : mapping of str to int
        The lowest level of each logger, by the logger's name.
    times : str, optional
        Format of the time of a record, as `time.strftime` takes it; by default that of `logging`.
    """
    handler.setFormatter(logging.Formatter(_FORMAT, times))
    for name, level in levels.items():
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)


@contextmanager
def log_to_file(path: Path, levels: Mapping[str, int] = LEVELS, *, mode: str = "a") -> Iterator[None]:
    """Send records to a file within the context; restore the loggers afterwards.

    Parameters
    ----------
    path : Path
        The file.
    levels : mapping of str to int
        As of `send_logs`.
    mode : {"a", "w"}
        Whether to append to the file or to overwrite it.
    """
    handler = logging.FileHandler(path, mode=mode, encoding="utf-8")
    loggers = [logging.getLogger(name) for name in levels]
    before = [(logger.handlers[:], logger.propagate, logger.level) for logger in loggers]
    send_logs(handler, levels)
    try:
        yield
    finally:
        for logger, (handlers, propagate, level) in zip(loggers, before, strict=True):
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)
        handler.close()


@contextmanager
def quiet_flower(level: int = logging.ERROR) -> Iterator[None]:
    """Suppress records of flwr's logger below `level` within the context."""
    logger = logging.getLogger(FLOWER)
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)
