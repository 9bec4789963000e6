"""What a worker process does: takes a message, calls the ClientApp, sends back the reply."""

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
    """One message for one node."""

    node: int
    metadata: dict[str, Any]
    state: str  # name of the node's state; empty if it has none
    content: bytes  # its records, large arrays left out: they lie in the mail folder, once for all nodes


@dataclass(frozen=True)
class JobResult:
    """What came of a job: a reply, or a traceback."""

    reply: bytes  # its parts, large arrays left in the mail folder; empty if there is none
    mail: frozenset[str] = frozenset()  # what it has there
    state: tuple[str, frozenset[str]] | None = None  # the node's new state and its blobs; None if it did not change
    failure: str = ""


@dataclass(frozen=True)
class WorkerContext:
    """What all workers of an engine share."""

    app: ClientApp
    run_id: int
    run_config: dict[str, Any]
    partition_of: Mapping[int, int]  # node id -> partition
    mail: Path  # folder of the messages' large arrays
    states: Path  # folder of the nodes' states
    passing: tuple[Path, ...]  # folders that go when the engine does


def serve(connection: Connection, site: WorkerContext) -> None:
    """Work until the engine hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the engine decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    # Else all workers would draw the same: private noise, above all, that two nodes share could be taken away.
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
    except Exception:  # noqa: BLE001  a client that raises fails alone, whatever it raises
        return JobResult(b"", failure=traceback.format_exc())


def fork_workers(control: int, site: WorkerContext) -> None:
    """Be the zygote: fork a worker for every connection that comes over the socket `control`, until it is closed.

    The zygote is forked from a process that has the app, torch and the data loaded, and it never starts a thread or a
    GPU: so its workers start in milliseconds, share all of that, and one that was killed is replaced at any time,
    whatever the engine's own process has done since.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for workers: the kernel reaps them
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
                    os._exit(code)  # never run what the engine's process wanted to do at its exit
            os.close(fds[0])
            workers.append(pid)
            line.sendall(pid.to_bytes(8, "little"))
    # The engine is done, or was killed: what it leaves behind goes too.
    for pid in workers:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    for folder in site.passing:
        shutil.rmtree(folder, ignore_errors=True)
