"""Memory and CPU time of processes, as the kernel counts them."""

from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil


class ProcessMemory(NamedTuple):
    """Bytes of a process and all its descendants together."""

    pss: int  # shared pages are divided by the number of processes that share them
    rss: int  # shared pages count in each process
    processes: int


def taken(process: psutil.Process) -> ProcessMemory:
    """Return the present memory of a process and its descendants; zeros if it is ending."""
    total = ProcessMemory(0, 0, 0)
    try:
        for part in (process, *process.children(recursive=True)):
            found = part.memory_full_info()
            total = ProcessMemory(total.pss + found.pss, total.rss + found.rss, total.processes + 1)
    except psutil.Error:
        return ProcessMemory(0, 0, 0)
    return total


def busy(process: psutil.Process) -> dict[int, float]:
    """Return the CPU seconds of a process and its descendants, by process id."""
    seconds = {}
    for part in (process, *process.children(recursive=True)):
        with suppress(psutil.Error):
            times = part.cpu_times()
            seconds[part.pid] = times.user + times.system
    return seconds


def peak(process: psutil.Process) -> int:
    """Return the peak resident bytes of a process, without its descendants."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    return 0
