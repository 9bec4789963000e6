"""Logging: the loggers of fedpress and of flwr, and their handlers."""

import fcntl
import logging
import os
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import MappingProxyType

LOGGER, FLOWER = "fedpress", "flwr"  # names of loggers
LEVELS: Mapping[str, int] = MappingProxyType({LOGGER: logging.INFO, FLOWER: logging.INFO})
LOG_BYTES, LOG_FILES = 10 << 20, 3  # the size at which a log is renamed, and the number of renamed ones that are kept
ALERT = "fedpress: warning: "  # what an alert on standard error begins with
_FORMAT = "%(asctime)s %(levelname)s %(message)s"
_LONGEST = 200  # characters of a text from a node

_lock = threading.Lock()
_files: defaultdict[str, list[logging.Handler]] = defaultdict(list)  # that each logger writes to
_file_of: dict[int, logging.Handler] = {}  # of threads
_before: dict[str, tuple[list[logging.Handler], bool, int]] = {}  # handlers, propagation and level of loggers


def clean(text: object, longest: int = _LONGEST) -> str:
    r"""Return a text from another party as one line that is safe to log or to print.

    Parameters
    ----------
    text : object
        The text, or what has one.
    longest : int
        Number of characters after which it is cut.

    Returns
    -------
    str
        The text with its control characters as escapes, cut to `longest` characters.

    Examples
    --------
    >>> clean("failed\n2026-11-30 INFO all is well\x1b[2J")
    'failed\\n2026-11-30 INFO all is well\\x1b[2J'
    >>> clean("x" * 1_000_000, longest=6)
    'xxx...'
    """
    line = _escaped(str(text)[: longest + 1])
    return line if len(line) <= longest else f"{line[: longest - 3]}..."


def _escaped(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class LineFormatter(logging.Formatter):
    """Formats a record so that no text in it can pass for another record, or steer a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n  ".join(map(_escaped, super().format(record).expandtabs(4).split("\n")))


class LogFile(RotatingFileHandler):
    """A log file that is renamed when it is full, also where several processes write to it.

    Parameters
    ----------
    path : Path
        The file.
    mode : {"a", "w"}
        Whether to append to the file or to overwrite it.
    """

    def __init__(self, path: Path, mode: str = "a") -> None:
        if mode == "w":
            path.unlink(missing_ok=True)
        super().__init__(path, maxBytes=LOG_BYTES, backupCount=LOG_FILES, encoding="utf-8")

    def shouldRollover(self, record: logging.LogRecord) -> bool:  # noqa: N802  logging's name
        self._follow()
        return bool(super().shouldRollover(record))

    def doRollover(self) -> None:  # noqa: N802
        if self.stream is not None:
            fcntl.lockf(self.stream, fcntl.LOCK_EX)  # released when the stream is closed
        if not self._follow():
            super().doRollover()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        if not isinstance(sys.exception(), OSError) or not sys.stderr:
            return super().handleError(record)
        with suppress(OSError, ValueError):  # as on a full disk: the line is not lost
            sys.stderr.write(self.format(record) + "\n")
        return None

    def close(self) -> None:
        with suppress(OSError):  # the disk is still full
            super().close()

    def _follow(self) -> bool:
        """Reopen the file if another process has renamed it; return whether that was so."""
        if self.stream is None:
            return False
        ours, path = os.fstat(self.stream.fileno()), Path(self.baseFilename)
        if path.exists() and os.path.samestat(path.stat(), ours):
            return False
        self.stream.close()
        self.stream = self._open()
        return True


def limit_logs(size: int, files: int) -> None:
    """Set the size in bytes at which log files are renamed, and the number of renamed ones that are kept."""
    for handler in logging.getLogger(LOGGER).handlers:
        if isinstance(handler, LogFile):
            handler.maxBytes, handler.backupCount = size, files


def alert(line: str, details: str = "") -> None:
    """Log a warning that needs a person, on standard error too if the log is a file, without its details there."""
    logger = logging.getLogger(LOGGER)
    logger.warning("%s", f"{line}. {details}" if details else line)
    if sys.stderr and any(isinstance(handler, LogFile) for handler in logger.handlers):
        with suppress(OSError, ValueError):
            sys.stderr.write(f"{ALERT}{line}\n")
            sys.stderr.flush()


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
    handler.setFormatter(LineFormatter(_FORMAT, times))
    for name, level in levels.items():
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)


@contextmanager
def log_to_file(path: Path, levels: Mapping[str, int] = LEVELS, *, mode: str = "a") -> Iterator[None]:
    """Send records to a file within the context; restore the loggers afterwards.

    Several threads may do so at once: a record of a thread that has a file goes to that one alone.

    Parameters
    ----------
    path : Path
        The file.
    levels : mapping of str to int
        As of `send_logs`.
    mode : {"a", "w"}
        Whether to append to the file or to overwrite it.
    """
    handler = LogFile(path, mode)
    handler.setFormatter(LineFormatter(_FORMAT))
    handler.addFilter(lambda record: _file_of.get(record.thread or 0, handler) is handler)
    here = threading.get_ident()
    with _lock:
        outer, _file_of[here] = _file_of.get(here), handler
        for name, level in levels.items():
            logger = logging.getLogger(name)
            if not _files[name]:
                _before[name] = logger.handlers, logger.propagate, logger.level
                logger.handlers, logger.propagate = [], False
            _files[name].append(handler)
            logger.addHandler(handler)
            logger.setLevel(level)
    try:
        yield
    finally:
        with _lock:
            for name in levels:
                logger = logging.getLogger(name)
                logger.removeHandler(handler)
                _files[name].remove(handler)
                if not _files[name]:
                    logger.handlers, logger.propagate, before = _before.pop(name)
                    logger.setLevel(before)
            del _file_of[here]
            if outer:
                _file_of[here] = outer
        handler.close()


@contextmanager
def quiet_flower(level: int = logging.ERROR) -> Iterator[None]:
    """Suppress this thread's records of flwr's logger below `level` within the context."""
    logger, here = logging.getLogger(FLOWER), threading.get_ident()

    def passes(record: logging.LogRecord) -> bool:
        return record.thread != here or record.levelno >= level

    logger.addFilter(passes)  # not the logger's level, which simulations in other threads share
    try:
        yield
    finally:
        logger.removeFilter(passes)
