"""The stack of another process: written by the process at a signal, also while it runs C code, to a file in memory."""

import faulthandler
import os
import re
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil

SIGNAL = signal.SIGRTMAX  # at which a process writes its stack
_WRITING = 0.05  # seconds in which a process writes a part of its stack
_LOOKS = 20  # after which a process that has not written counts as one that does not answer


def write_at_signal(descriptor: int) -> None:
    """Have this process write the stacks of its threads to the file `descriptor` whenever `read_stacks` asks."""
    faulthandler.register(SIGNAL, descriptor)


class StackFile:
    """A file for the stack of one process, which inherits its descriptor."""

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("fedpress-stack")

    def size(self) -> int:
        """Return the number of bytes that the process has written so far."""
        return os.fstat(self.descriptor).st_size

    def read(self, start: int) -> str:
        """Return what the process has written after the first `start` bytes."""
        return os.pread(self.descriptor, self.size() - start, start).decode(errors="replace").rstrip()

    def close(self) -> None:
        """Close this process's descriptor."""
        os.close(self.descriptor)


def read_stacks(files: Mapping[psutil.Process, StackFile]) -> dict[psutil.Process, str]:
    """Return the stacks of the threads of processes, or why there is none; all are asked at once."""
    starts = {process: file.size() for process, file in files.items()}
    asked = {process for process in files if _ask(process)}
    before = starts
    for _ in range(_LOOKS if asked else 0):
        time.sleep(_WRITING)
        sizes = {process: files[process].size() for process in asked}
        if all(before[process] == sizes[process] > starts[process] for process in asked):
            break
        before = sizes
    return {
        process: file.read(starts[process])
        or f"none: process {process.pid} {'does not answer' if process in asked else 'is still starting'}"
        for process, file in files.items()
    }


def _ask(process: psutil.Process) -> bool:
    """Send the signal, and return whether the process catches it: it would end a process that is still starting."""
    with suppress(psutil.NoSuchProcess, OSError):
        found = re.search(r"^SigCgt:\s*(\w+)", Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE)
        if found is None or not int(found[1], 16) >> (SIGNAL - 1) & 1:
            return False
        process.send_signal(SIGNAL)
    return True
