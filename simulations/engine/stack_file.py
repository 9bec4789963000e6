"""The stack of another process: written by the process at a signal, also while it runs C code, to a file in memory."""

import faulthandler
import os
import re
import signal
import time
from contextlib import suppress
from pathlib import Path

import psutil

_SIGNAL = signal.SIGRTMAX
_WRITING = 0.05  # seconds in which a process writes a part of its stack


def write_at_signal(descriptor: int) -> None:
    """Have this process write the stacks of its threads to the file `descriptor` whenever `StackFile.read` asks."""
    faulthandler.register(_SIGNAL, descriptor)


class StackFile:
    """A file for the stack of one process, which inherits its descriptor."""

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("fedpress-stack")

    def read(self, process: psutil.Process) -> str:
        """Return the stacks of the threads of `process`."""
        start = size = os.fstat(self.descriptor).st_size
        with suppress(psutil.NoSuchProcess, OSError):
            if not _catches(process):
                return "its beginning"
            process.send_signal(_SIGNAL)
        for _ in range(20):
            time.sleep(_WRITING)
            before, size = size, os.fstat(self.descriptor).st_size
            if before == size > start:
                break
        stack = os.pread(self.descriptor, size - start, start).decode(errors="replace").rstrip()
        return stack or f"an unknown place: process {process.pid} does not answer"

    def close(self) -> None:
        """Close this process's descriptor."""
        os.close(self.descriptor)


def _catches(process: psutil.Process) -> bool:
    """Return whether the signal is caught: it would end a process that has not come so far yet."""
    found = re.search(r"^SigCgt:\s*(\w+)", Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE)
    return found is not None and bool(int(found[1], 16) >> (_SIGNAL - 1) & 1)
