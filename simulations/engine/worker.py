"""The worker process: it receives a message, calls the ClientApp, and sends the reply."""

import os
import pickle
import random
import shutil
import signal
import socket
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context
from flwr.clientapp import ClientApp

from fedpress.flower.runtime import message_of, parts_of
from fedpress.simulations.engine.blob_store import Blobs
from fedpress.simulations.engine.state_store import NodeStates


@dataclass(frozen=True)
class Job:
    """A message for a node."""

    node: int
    metadata: dict[str, Any]
    state: str  # name of the node's state; empty if it has none
    content: bytes  # its records without large arrays, which are in the mail folder, once for all nodes


@dataclass(frozen=True)
class JobResult:
    """The result of a job: a reply, or a traceback."""

    reply: bytes  # its parts without large arrays, which are in the mail folder; empty after a failure
    mail: frozenset[str] = frozenset()  # names of its blobs in the mail folder
    state: tuple[str, frozenset[str]] | None = None  # the node's new state and its blobs; None if unchanged
    failure: str = ""  # the traceback; empty if there is a reply


@dataclass(frozen=True)
class WorkerContext:
    """The app and the configuration that all workers of an engine share."""

    app: ClientApp
    run_id: int
    run_config: dict[str, Any]
    partition_of: Mapping[int, int]  # node id -> partition
    mail: Path  # folder of the messages' large arrays
    states: Path  # folder of the nodes' states
    passing: tuple[Path, ...]  # folders that are removed with the engine


def serve(connection: Connection, site: WorkerContext) -> None:
    """Run jobs until the engine closes the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group: the engine stops its workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    # Otherwise all workers would draw the same numbers, and private noise that nodes share could be removed.
    random.seed()
    np.random.seed()  # noqa: NPY002
    mail, states = Blobs(site.mail, lasting=False), NodeStates(site.states)
    while True:
        try:
            job = pickle.loads(connection.recv_bytes())  # noqa: S301  from the engine itself
        except (EOFError, OSError):
            return
        done = _work(job, site, mail, states)
        try:
            connection.send_bytes(pickle.dumps(done, pickle.HIGHEST_PROTOCOL))
        except OSError:
            return


def _work(job: Job, site: WorkerContext, mail: Blobs, states: NodeStates) -> JobResult:
    try:
        message = message_of(job.metadata, mail.load(job.content))
        context = Context(
            run_id=site.run_id,
            node_id=job.node,
            node_config={"partition-id": site.partition_of[job.node], "num-partitions": len(site.partition_of)},
            state=states.load(job.state),
            run_config=dict(site.run_config),
        )
        reply = site.app(message, context)
        return JobResult(*mail.dump(parts_of(reply)), states.write(context.state, job.state))
    except Exception:  # noqa: BLE001  an error of a client fails only its reply
        return JobResult(b"", failure=traceback.format_exc())


def fork_workers(control: int, site: WorkerContext) -> None:
    """Run the zygote: fork a worker for every connection that arrives over a socket, until the socket is closed.

    The zygote is forked when the app, torch and the data are loaded, and never starts a thread or uses a GPU. Its
    workers start in milliseconds, share the loaded memory, and can be replaced at any time.

    Parameters
    ----------
    control : int
        File descriptor of the socket.
    site : WorkerContext
        What all workers share.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps workers
    workers = []
    with socket.socket(fileno=control) as line:
        while True:
            data, fds, _, _ = socket.recv_fds(line, 1, 1)
            if not data:
                break
            pid = os.fork()
            if pid == 0:
                line.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                code = 1
                try:
                    serve(Connection(fds[0]), site)
                    code = 0
                finally:
                    os._exit(code)  # without the exit handlers of the engine's process
            os.close(fds[0])
            workers.append(pid)
            line.sendall(pid.to_bytes(8, "little"))
    # The engine has ended or was killed: remove its processes and folders.
    for pid in workers:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    for folder in site.passing:
        shutil.rmtree(folder, ignore_errors=True)
