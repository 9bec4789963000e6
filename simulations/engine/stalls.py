"""Stalled workers: those that use no processor, and those that compute for much longer than any has before."""

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import psutil

from fedpress.simulations.engine.processes import descendants

_PERIOD = 5.0  # seconds between two measurements
_LEAST = 0.01  # processor seconds in a period, with less a worker makes no progress
_LONG = 10.0  # seconds of computing before which no job is reported
_LONGER = 3.0  # times the longest job that has ended: a job that computes for longer is reported


@dataclass(frozen=True)
class Stall:
    """A job that may never end."""

    pid: int  # the worker's
    seconds: float  # since it got the job
    computes: bool  # whether it uses a processor


class StallMonitor:
    """Measures workers every few seconds.

    A job is reported when its worker has used no processor for a period, or has computed for longer than jobs do, and
    again whenever its time has doubled. Until a job has ended, nobody knows how long jobs take: then one job stands for
    all, and the time of any has to double.

    Parameters
    ----------
    root : psutil.Process
        The process that started the workers.
    """

    def __init__(self, root: psutil.Process) -> None:
        self._root = root
        self._measured = time.monotonic()
        self._used: dict[int, float] = {}
        self._longest = 0.0  # seconds of a job that has ended
        self._due_of_any = 0.0  # seconds of a job before which none is reported while no job has ended
        self._due: dict[tuple[int, float], float] = {}  # the same of a reported job, once one has

    @property
    def is_due(self) -> bool:
        """Whether the period since the last measurement is over."""
        return time.monotonic() - self._measured >= _PERIOD

    def ended(self, seconds: float) -> None:
        """Take into account that a job has ended by itself after so many seconds."""
        self._longest = max(self._longest, seconds)

    def stalls(self, began: Mapping[int, float]) -> list[Stall]:
        """Measure the workers, and return the jobs to report.

        Parameters
        ----------
        began : mapping of int to float
            When each worker, by its process id, got its job, by `time.monotonic`.

        Returns
        -------
        list of Stall
            The jobs: first those that use no processor, then the oldest.
        """
        now = time.monotonic()
        since, before = self._measured, self._used
        self._measured, self._used = now, self._processor_seconds(began)
        self._due = {job: due for job, due in self._due.items() if job in began.items()}
        found = []
        for pid, start in began.items():
            if start > since or pid not in before or self._used[pid] < before[pid]:
                continue
            stall = Stall(pid, now - start, computes=self._used[pid] - before[pid] >= _LEAST)
            usual = max(_LONG, _LONGER * self._longest) if stall.computes else 0.0
            due = self._due.get((pid, start), 0.0) if self._longest else self._due_of_any
            if stall.seconds >= max(usual, due):
                found.append(stall)
        found.sort(key=lambda stall: (stall.computes, -stall.seconds))
        if not self._longest:
            found = found[:1]
            self._due_of_any = max([self._due_of_any, *(2 * stall.seconds for stall in found)])
        self._due |= {(stall.pid, began[stall.pid]): 2 * stall.seconds for stall in found}
        return found

    def _processor_seconds(self, workers: Mapping[int, float]) -> dict[int, float]:
        """Return the processor time that each worker and all processes that it started have used."""
        parents, used = {}, {}
        for process in descendants(self._root):
            with suppress(psutil.Error):
                parents[process.pid] = process.ppid()
                used[process.pid] = sum(process.cpu_times()[:4])  # its own and its ended children's
        totals: dict[int, float] = dict.fromkeys(workers, 0.0)
        for pid, seconds in used.items():
            worker = pid
            while worker not in workers and worker in parents:
                worker = parents[worker]
            if worker in totals:
                totals[worker] += seconds
        return totals
