"""The pool of worker processes, which replaces those that die."""

import logging
import os
import pickle
import socket
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing.connection import Connection, wait

import psutil

from fedpress.common.errors import FedpressError
from fedpress.common.logs import LOGGER, alert
from fedpress.simulations.engine.processes import end_tree
from fedpress.simulations.engine.stack_file import StackFile, read_stacks
from fedpress.simulations.engine.stalls import StallMonitor
from fedpress.simulations.engine.worker import Job, JobResult, WorkerContext

_log = logging.getLogger(LOGGER)
_TICK = 1.0  # seconds between two looks at the workers
_LOADING = 10.0  # seconds after which a start is reported; again whenever they have doubled


@dataclass(frozen=True, eq=False)
class _Worker:
    process: psutil.Process
    connection: Connection
    stack: StackFile


@dataclass(frozen=True)
class _Assignment:
    worker: _Worker
    place: int  # of the job
    node: int
    began: float = field(default_factory=time.monotonic)


class Pool:
    """Worker processes that run a ClientApp, of one thread each.

    They start in the background: the first job waits until the app is loaded.

    Parameters
    ----------
    site : WorkerContext
        What all workers share.
    workers : int
        Number of processes.

    Raises
    ------
    SettingError
        If the app must be sent to a new process, and cannot be pickled.
    """

    def __init__(self, site: WorkerContext, workers: int) -> None:
        from fedpress.simulations.engine.starter import launch  # whose dependencies are optional

        self._partition_of = site.partition_of
        self._starter = launch(site)
        self._monitor = StallMonitor(self._starter.process)
        self._starting = deque(self._request() for _ in range(workers))
        self._idle: list[_Worker] = []
        self._busy: dict[Connection, _Assignment] = {}

    def run(self, jobs: Iterable[Job], timeout: float | None) -> Iterator[tuple[int, JobResult]]:
        """Run jobs, and yield results as workers finish.

        A job whose worker dies fails. After the timeout, workers that are still busy are killed and replaced, and
        nothing is yielded for unfinished jobs.

        Parameters
        ----------
        jobs : iterable of Job
            The jobs. They are taken ahead while workers are busy, as many as there are workers.
        timeout : float or None
            Seconds for all jobs, without the start of workers; None for no limit.

        Yields
        ------
        tuple of (int, JobResult)
            A job's position in `jobs`, and its result.
        """
        while self._starting:
            self._idle.append(self._greet(*self._starting.popleft()))
        deadline = None if timeout is None else time.monotonic() + timeout
        source = enumerate(jobs)
        waiting: deque[tuple[int, Job]] = deque()
        more = True
        try:
            while True:
                while waiting and (self._idle or self._starting):
                    self._assign(*waiting.popleft())
                ahead = len(self._idle) + len(self._starting) + len(self._busy) - len(waiting)
                if more and ahead > 0:
                    found = list(islice(source, 1))
                    waiting.extend(found)
                    more = bool(found)
                if not (more or waiting or self._busy):
                    return
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                pause = _TICK if left is None else min(left, _TICK)
                ready = wait(list(self._busy), 0 if more and ahead > 1 else pause) if self._busy else []
                self._look()
                if not ready and left == 0:
                    waiting.extend(source)
                    _log.warning("%d messages timed out after %g s", len(waiting) + len(self._busy), timeout)
                    return
                for connection in ready:
                    yield self._finish(connection)  # type: ignore[arg-type]
        finally:
            for assignment in list(self._busy.values()):
                self._replace(assignment.worker)

    def close(self) -> None:
        """End all processes, and those that they started."""
        end_tree(self._starter.process)
        self._starter.requests.close()
        self._starter.stack.close()
        for worker in [*self._idle, *(assignment.worker for assignment in self._busy.values())]:
            worker.connection.close()
            worker.stack.close()
        for connection, stack in self._starting:
            connection.close()
            stack.close()

    def _request(self) -> tuple[Connection, StackFile]:
        """Ask for a worker; return the connection to it, and the file for its stack."""
        near, far = socket.socketpair()
        stack = StackFile()
        with far, suppress(OSError):  # if the starter has ended, `_greet` says why
            socket.send_fds(self._starter.requests, [b"w"], [far.fileno(), stack.descriptor])
        return Connection(near.detach()), stack

    def _greet(self, connection: Connection, stack: StackFile) -> _Worker:
        """Wait until a worker is there, and return it."""
        seconds = 0.0
        starter = {self._starter.process: self._starter.stack}
        while not connection.poll(max(_LOADING, seconds)):
            seconds += max(_LOADING, seconds)
            alert(
                f"workers have been loading the app for {seconds:.0f} s",
                f"The stack of their starter:\n{read_stacks(starter)[self._starter.process]}",
            )
        try:
            return _Worker(psutil.Process(connection.recv()), connection, stack)
        except (EOFError, OSError, psutil.NoSuchProcess):
            self._starter.requests.settimeout(_TICK)
            with suppress(OSError):
                # One read: the next fails, as the process has ended without reading all requests.
                if reason := self._starter.requests.recv(1 << 16).decode(errors="replace"):
                    raise FedpressError(f"a worker cannot load client_app:\n{reason.strip()}") from None
            raise FedpressError("a worker ended while it loaded client_app") from None

    def _assign(self, place: int, job: Job) -> None:
        worker = self._idle.pop() if self._idle else self._greet(*self._starting.popleft())
        self._busy[worker.connection] = _Assignment(worker, place, job.node)
        # A worker that died while it was idle is detected when its connection is read next.
        with suppress(OSError):
            worker.connection.send_bytes(pickle.dumps(job, pickle.HIGHEST_PROTOCOL))

    def _finish(self, connection: Connection) -> tuple[int, JobResult]:
        assignment = self._busy[connection]
        worker = assignment.worker
        try:
            done: JobResult
            done, logs = pickle.loads(connection.recv_bytes())  # noqa: S301  from this engine's own process
        except (EOFError, OSError):
            self._replace(worker)
            return assignment.place, JobResult(b"", failure=f"worker {worker.process.pid} died")
        for record in logs:
            record.thread = threading.get_ident()  # a log file takes the records of its simulation's thread
            logging.getLogger(record.name).handle(record)
        self._monitor.ended(time.monotonic() - assignment.began)
        del self._busy[connection]
        self._idle.append(worker)
        return assignment.place, done

    def _replace(self, worker: _Worker) -> None:
        del self._busy[worker.connection]
        end_tree(worker.process)
        worker.connection.close()
        worker.stack.close()
        self._starting.append(self._request())

    def _look(self) -> None:
        """Report jobs that may never end; end the connections of workers that died, if another process holds them."""
        if not self._monitor.is_due:
            return
        assigned = {assignment.worker.process.pid: assignment for assignment in self._busy.values()}
        for assignment in assigned.values():
            if not assignment.worker.process.is_running():
                with socket.socket(fileno=os.dup(assignment.worker.connection.fileno())) as line:
                    line.shutdown(socket.SHUT_RDWR)
        stalls = self._monitor.stalls({pid: assignment.began for pid, assignment in assigned.items()})
        stalled = [assigned[stall.pid].worker for stall in stalls]
        stacks = read_stacks({worker.process: worker.stack for worker in stalled})
        for stall, worker in zip(stalls, stalled, strict=True):
            client = f"client {self._partition_of.get(assigned[stall.pid].node)}"
            does = "is still computing after" if stall.computes else "has made no progress for"
            alert(f"{client} {does} {stall.seconds:.0f} s", f"The stack of its process:\n{stacks[worker.process]}")
