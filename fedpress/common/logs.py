"""Logging: the loggers of fedpress and of flwr, and where their records go."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

LOGGER, FLOWER = "fedpress", "flwr"  # names of loggers
LEVELS: Mapping[str, int] = MappingProxyType({LOGGER: logging.INFO, FLOWER: logging.INFO})
_FORMAT = "%(asctime)s %(levelname)s %(message)s"


def send_logs(handler: logging.Handler, levels: Mapping[str, int] = LEVELS, *, times: str | None = None) -> None:
    """Send records to `handler` and nowhere else, until the process ends or another handler is set.

    Parameters
    ----------
    handler : logging.Handler
        Gets a formatter here.
    levels : mapping of str to int
        The loggers, by name, each with the lowest level that is let through.
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
    """Send records to a file inside the context, and to where they went before after it.

    Parameters
    ----------
    path : Path
        The file.
    levels : mapping of str to int
        As of `send_logs`.
    mode : {"a", "w"}
        Whether to append to the file or to begin it anew.
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
    """Let nothing below `level` through flwr's logger inside the context."""
    logger = logging.getLogger(FLOWER)
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)
