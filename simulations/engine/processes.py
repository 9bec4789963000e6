"""Processes: whether this one may be forked, and the end of all that one started."""

import ctypes
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil

_SET_PARENT_DEATH_SIGNAL, _SET_CHILD_SUBREAPER = 1, 36  # of prctl(2)
_FOREIGN = ("socket:", "pipe:", "anon_inode:", "/dev/nvidia")  # descriptors that two processes must not share
_PATIENCE = 1.0  # seconds that a process has to end by itself
_LIMIT = 10.0  # seconds after which a process that cannot be killed is left


def fork_hazard() -> str:
    """Return why this process must not be forked, as a clause; empty if it may be.

    A fork copies only the calling thread. Locks that other threads hold are never released in the copy, and OpenMP and
    GPUs do not work there.
    """
    if threading.active_count() > 1:
        return "this process has threads"
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_initialized():
        return "this process uses a GPU"
    if _native_threads() > 1:
        _end_idle_threads()
    if _native_threads() > 1:
        return "libraries run threads in this process"
    return ""


def descriptor_hazard() -> str:
    """Return which descriptors a fork must not share, as a clause; empty if this process has opened none of them.

    Those that its own parent left to it are inheritable, and shared already.
    """
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the folder's own descriptor
            if str(link.readlink()).startswith(_FOREIGN) and not os.get_inheritable(int(link.name)):
                return "this process has open sockets or pipes"
    return ""


def adopt_orphans() -> None:
    """Become the parent of all descendants whose own parents end, so that `end_descendants` finds them."""
    _prctl(_SET_CHILD_SUBREAPER, 1)


def end_with_parent() -> None:
    """Have the kernel kill this process when its parent ends."""
    _prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)


def end_descendants(process: psutil.Process) -> None:
    """End all processes that `process` started, directly or not; those that do not end when told to are killed."""
    deadline = time.monotonic() + _LIMIT
    end = psutil.Process.terminate
    while (found := descendants(process)) and time.monotonic() < deadline:
        for descendant in found:
            with suppress(psutil.Error):
                end(descendant)
        psutil.wait_procs(found, timeout=_PATIENCE)
        end = psutil.Process.kill


def end_tree(process: psutil.Process) -> None:
    """End `process` and all that it started."""
    end_descendants(process)  # first: they are not found once their parent has ended
    with suppress(psutil.Error):
        process.kill()
        process.wait(_LIMIT)


def descendants(process: psutil.Process) -> list[psutil.Process]:
    """Return all processes that `process` started, directly or not; none if it has ended."""
    try:
        found: list[psutil.Process] = process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return found


def _native_threads() -> int:
    return sum(1 for _ in Path("/proc/self/task").iterdir())


def _end_idle_threads() -> None:
    """Let libraries end the threads that they end before each fork, as OpenBLAS does, and start again when needed."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    with suppress(ChildProcessError):  # if the program ignores SIGCHLD
        os.waitpid(pid, 0)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
