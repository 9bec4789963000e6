"""Processes that an app forks."""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def forks_end_here() -> Iterator[None]:
    """Have a process that is forked within the context end where it leaves it, with the exit code of a program.

    Otherwise it would run what follows a second time, and clean up what belongs to the process that forked it.
    """
    process = os.getpid()
    code = 0
    try:
        yield
    except BaseException as error:
        if os.getpid() == process:
            raise
        code = _exit_code(error)
    if os.getpid() != process:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)


def _exit_code(error: BaseException) -> int:
    """Return the code with which a program ends after `error`, which is printed as the interpreter does."""
    if not isinstance(error, SystemExit):
        traceback.print_exception(error)
        return 1
    if error.code is None or isinstance(error.code, int):
        return (error.code or 0) & 0xFF
    if sys.stderr:
        sys.stderr.write(f"{error.code}\n")
    return 1
