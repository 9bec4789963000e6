"""The process that starts workers: a fork of the simulation's process where that is safe, else a new one.

It loads the app once, and then forks a worker for each request, which takes milliseconds and shares the loaded memory.
If the app's own modules have started threads by then, it starts each worker anew too.
"""

import gc
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import traceback
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection

import psutil
from threadpoolctl import threadpool_limits

from fedpress.common.logs import LOGGER
from fedpress.simulations.engine.parcel import pack, unpack
from fedpress.simulations.engine.processes import (
    adopt_orphans,
    descriptor_hazard,
    end_descendants,
    end_with_parent,
    fork_hazard,
)
from fedpress.simulations.engine.stack_file import SIGNAL, StackFile, write_at_signal
from fedpress.simulations.engine.worker import WorkerContext, serve

_log = logging.getLogger(LOGGER)
_PROGRAM = """
import faulthandler, json, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.path[:], sys.argv[:], number, (kind, ends, parcel) = json.loads(sys.argv[1])
faulthandler.register(number, ends[1])  # as write_at_signal, which is not imported yet
from fedpress.simulations.engine.starter import main
main(kind, ends, parcel)
"""
_ONE_THREAD = {"OMP_NUM_THREADS": "1"}  # for libraries that workers load later
_POLL = 1.0  # seconds between two looks at whether the simulation's process is still there


@dataclass(frozen=True)
class Starter:
    """The process that starts workers."""

    process: psutil.Process
    requests: socket.socket  # takes a byte with two descriptors: of the worker's connection, and of its `StackFile`
    stack: StackFile


def launch(site: WorkerContext) -> Starter:
    """Start the process that starts workers.

    Parameters
    ----------
    site : WorkerContext
        What all workers share.

    Returns
    -------
    Starter
        The process. If the app cannot be loaded it sends an error over the socket, and ends.

    Raises
    ------
    SettingError
        If the app must be sent to a new process, and cannot be pickled.
    """
    hazard = fork_hazard() or descriptor_hazard()
    parcel = pack(site) if hazard else None
    near, far = socket.socketpair()
    stack = StackFile()
    with far:
        if parcel is None:
            _log.info("workers are forked from this process, which has one thread")
            return Starter(_fork(near, far, stack.descriptor, site), near, stack)
        _log.info("workers are started anew, not forked: %s", hazard)
        try:
            return Starter(_start_anew("starter", (far.fileno(), stack.descriptor), parcel), near, stack)
        finally:
            os.close(parcel)


def main(kind: str, ends: list[int], parcel: int) -> None:
    """Be a process that was started anew: a worker, or one that starts workers.

    Parameters
    ----------
    kind : {"starter", "worker"}
        Which of both.
    ends : list of int
        Descriptors: the socket of requests, or a worker's connection; and the file for the process's stack.
    parcel : int
        Descriptor of the parcel with the `WorkerContext`.
    """
    for end in ends:
        os.set_inheritable(end, False)
    if kind == "worker":
        end_with_parent()
        site = _unpack(parcel)
        threadpool_limits(1)
        serve(Connection(ends[0]), ends[1], site, forward_logs=True)
        return
    with socket.socket(fileno=ends[0]) as control:
        try:
            _start_workers(control, _unpack(parcel), anew=True)
        except Exception:  # noqa: BLE001  the simulation's process raises it
            with suppress(OSError):
                control.sendall(traceback.format_exc().encode())


def _unpack(parcel: int) -> WorkerContext:
    site: WorkerContext = unpack(parcel)
    os.close(parcel)
    return site


def _start_anew(kind: str, ends: tuple[int, ...], parcel: int) -> psutil.Process:
    path = [entry for entry in sys.path if isinstance(entry, str)]
    given = json.dumps([path, sys.argv, SIGNAL, [kind, ends, parcel]])
    return psutil.Popen(
        [sys.executable, "-c", _PROGRAM, given],
        env={**os.environ, **_ONE_THREAD},
        stdin=subprocess.DEVNULL,
        pass_fds=(*ends, parcel),
    )


def _fork(near: socket.socket, far: socket.socket, stack: int, site: WorkerContext) -> psutil.Process:
    gc.collect()
    gc.freeze()  # so that the collector does not write to, and thereby copy, shared memory
    for stream in filter(None, (sys.stdout, sys.stderr)):  # a program without a terminal may have none
        stream.flush()
    pid = os.fork()
    if pid:
        gc.unfreeze()
        return psutil.Process(pid)
    code = 1
    try:
        near.close()
        write_at_signal(stack)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.environ.update(_ONE_THREAD)
        _start_workers(far, site, anew=False)
        code = 0
    except Exception:  # noqa: BLE001  as in `main`
        with suppress(OSError):
            far.sendall(traceback.format_exc().encode())
    finally:
        os._exit(code)  # without the exit handlers of the simulation's process


def _start_workers(control: socket.socket, site: WorkerContext, *, anew: bool) -> None:
    """Start a worker for every request, until the simulation's process closes the socket or ends."""
    parent = os.getppid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    adopt_orphans()
    if site.prepare:
        site.prepare()
    threadpool_limits(1)  # for libraries already loaded: many threads in many processes contend for the cores
    gc.collect()
    gc.freeze()
    parcel = pack(site) if fork_hazard() else None
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps workers
    control.settimeout(_POLL)
    while os.getppid() == parent:
        try:
            request, ends, _, _ = socket.recv_fds(control, 1, 2, socket.MSG_CMSG_CLOEXEC)
        except TimeoutError:
            continue
        if not request:
            break
        if parcel is None:
            _fork_worker(control, ends, site, anew=anew)
        else:
            _start_anew("worker", tuple(ends), parcel)
        for end in ends:
            os.close(end)
    # The simulation has ended, or was killed: then nobody else removes its processes and folders.
    end_descendants(psutil.Process())
    for folder in site.passing:
        shutil.rmtree(folder, ignore_errors=True)


def _fork_worker(control: socket.socket, ends: list[int], site: WorkerContext, *, anew: bool) -> None:
    if os.fork():
        return
    code = 1
    try:
        end_with_parent()
        control.close()
        serve(Connection(ends[0]), ends[1], site, forward_logs=anew)
        code = 0
    finally:
        os._exit(code)
