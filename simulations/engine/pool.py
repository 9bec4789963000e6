"""The pool of worker processes, which replaces those that die."""

import gc
import logging
import os
import pickle
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import Connection, wait

from fedpress.common.logs import LOGGER
from fedpress.simulations.engine.worker import Job, JobResult, WorkerContext, fork_workers

_log = logging.getLogger(LOGGER)


@dataclass(frozen=True, eq=False)
class _Worker:
    pid: int
    connection: Connection


class Pool:
    """Worker processes that run a ClientApp, of one thread each.

    Create it before the process starts threads or uses a GPU: it forks.

    Parameters
    ----------
    site : WorkerContext
        What all workers share.
    workers : int
        Number of processes.
    """

    def __init__(self, site: WorkerContext, workers: int) -> None:
        from threadpoolctl import threadpool_limits  # an optional dependency, not needed to read a run's folder

        self._control, far = socket.socketpair()
        os.environ["OMP_NUM_THREADS"] = "1"  # for libraries that workers load later
        # For libraries already loaded: many BLAS threads in many processes contend for the cores. This process encodes
        # while its workers train, so its own BLAS is limited too, until `close`.
        self._limits = threadpool_limits(1, user_api="blas")
        gc.collect()
        gc.freeze()  # so that the collector does not write to, and thereby copy, shared memory
        sys.stdout.flush()
        sys.stderr.flush()
        self._zygote = os.fork()
        if self._zygote == 0:
            code = 1
            try:
                self._control.close()
                fork_workers(far.detach(), site)
                code = 0
            finally:
                os._exit(code)
        gc.unfreeze()
        far.close()
        self._idle = [self._start() for _ in range(workers)]
        self._busy: dict[Connection, tuple[_Worker, int]] = {}

    def run(self, jobs: Iterable[Job], timeout: float | None) -> Iterator[tuple[int, JobResult]]:
        """Run jobs, and yield results as workers finish.

        A job whose worker dies fails. After the timeout, workers that are still busy are killed and replaced, and
        nothing is yielded for unfinished jobs.

        Parameters
        ----------
        jobs : iterable of Job
            The jobs. They are taken ahead while workers are busy, as many as there are workers.
        timeout : float or None
            Seconds for all jobs; None for no limit.

        Yields
        ------
        tuple of (int, JobResult)
            A job's position in `jobs`, and its result.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        source = enumerate(jobs)
        waiting: deque[tuple[int, Job]] = deque()
        more = True
        try:
            while True:
                while waiting and self._idle:
                    self._assign(*waiting.popleft())
                ahead = len(self._idle) + len(self._busy) - len(waiting)
                if more and ahead > 0:
                    found = list(islice(source, 1))
                    waiting.extend(found)
                    more = bool(found)
                if not (more or waiting or self._busy):
                    return
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                ready = wait(list(self._busy), 0 if more and ahead > 1 else left) if self._busy else []
                if not ready and left == 0:
                    waiting.extend(source)
                    _log.warning("%d messages timed out after %g s", len(waiting) + len(self._busy), timeout)
                    return
                for connection in ready:
                    yield self._finish(connection)  # type: ignore[arg-type]
        finally:
            for worker, _ in list(self._busy.values()):
                self._replace(worker)

    def close(self) -> None:
        """Kill all processes."""
        self._control.close()  # the zygote kills its workers, and exits
        for worker in [*self._idle, *(worker for worker, _ in self._busy.values())]:
            _kill(worker)
        with suppress(ChildProcessError):
            os.waitpid(self._zygote, 0)
        self._limits.restore_original_limits()

    def _assign(self, place: int, job: Job) -> None:
        worker = self._idle.pop()
        self._busy[worker.connection] = worker, place
        # A worker that died while it was idle is detected when its connection is read next.
        with suppress(OSError):
            worker.connection.send_bytes(pickle.dumps(job, pickle.HIGHEST_PROTOCOL))

    def _finish(self, connection: Connection) -> tuple[int, JobResult]:
        worker, place = self._busy[connection]
        try:
            done: JobResult = pickle.loads(connection.recv_bytes())  # noqa: S301  from this engine's own process
        except (EOFError, OSError):
            self._replace(worker)
            return place, JobResult(b"", failure=f"worker {worker.pid} died")
        del self._busy[connection]
        self._idle.append(worker)
        return place, done

    def _replace(self, worker: _Worker) -> None:
        del self._busy[worker.connection]
        _kill(worker)
        self._idle.append(self._start())

    def _start(self) -> _Worker:
        near, far = socket.socketpair()
        socket.send_fds(self._control, [b"w"], [far.fileno()])
        far.close()
        pid = self._control.recv(8, socket.MSG_WAITALL)
        if len(pid) < 8:
            raise RuntimeError("the process that starts workers has exited")
        return _Worker(int.from_bytes(pid, "little"), Connection(near.detach()))


def _kill(worker: _Worker) -> None:
    # The pid of a worker that has exited is not reused before the zygote forks again, which only this process requests.
    worker.connection.close()
    with suppress(ProcessLookupError):
        os.kill(worker.pid, signal.SIGKILL)
