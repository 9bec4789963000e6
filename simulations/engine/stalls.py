"""Stalled workers: those that use no processor, and have no process that does."""

import time
from collections.abc import Mapping
from contextlib import suppress

import psutil

from fedpress.simulations.engine.processes import descendants

_PERIOD = 5.0  # seconds between two measurements
_LEAST = 0.01  # processor seconds in a period, with less a worker makes no progress


class StallMonitor:
    """Measures workers every few seconds.

    Parameters
    ----------
    root : psutil.Process
        The process that started them.
    """

    def __init__(self, root: psutil.Process) -> None:
        self._root = root
        self._measured = time.monotonic()
        self._used: dict[int, float] = {}

    def stalled(self, began: Mapping[int, float]) -> list[int]:
        """Return the workers that have done nothing for a period; none if it is not over yet.

        Parameters
        ----------
        began : mapping of int to float
            When each worker, by its process id, got its job, by `time.monotonic`.

        Returns
        -------
        list of int
            Process ids.
        """
        now = time.monotonic()
        if now - self._measured < _PERIOD:
            return []
        since, before = self._measured, self._used
        self._measured, self._used = now, self._processor_seconds(began)
        return [
            pid
            for pid, start in began.items()
            if start <= since and pid in before and 0 <= self._used[pid] - before[pid] < _LEAST
        ]

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
