"""What processes take of the memory, as the kernel counts it."""

from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil


class ProcessMemory(NamedTuple):
    """Bytes of a process and all that descend from it, together."""

    pss: int  # a page that several processes share, anybody's, counts as a part
    rss: int  # it counts in each of them
    processes: int


def taken(process: psutil.Process) -> ProcessMemory:
    """Return what a process and its descendants take now; nothing if it is ending."""
    total = ProcessMemory(0, 0, 0)
    try:
        for part in (process, *process.children(recursive=True)):
            found = part.memory_full_info()
            total = ProcessMemory(total.pss + found.pss, total.rss + found.rss, total.processes + 1)
    except psutil.Error:
        return ProcessMemory(0, 0, 0)
    return total


def busy(process: psutil.Process) -> dict[int, float]:
    """Return the seconds of processor that a process and its descendants have taken, by process."""
    taken_by = {}
    for part in (process, *process.children(recursive=True)):
        with suppress(psutil.Error):
            times = part.cpu_times()
            taken_by[part.pid] = times.user + times.system
    return taken_by


def peak(process: psutil.Process) -> int:
    """Return the most bytes that a process ever had resident, itself alone."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    return 0
