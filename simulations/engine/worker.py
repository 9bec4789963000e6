"""The worker process: it receives a message, calls the ClientApp, and sends the reply."""

import logging
import os
import pickle
import random
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from logging.handlers import QueueHandler
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
from flwr.app import Context
from flwr.clientapp import ClientApp

from fedpress.common.forks import forks_end_here
from fedpress.compression.third_party import import_codecs
from fedpress.flower.runtime import identify, message_of, parts_of
from fedpress.simulations.engine.blob_store import Blobs
from fedpress.simulations.engine.stack_file import write_at_signal
from fedpress.simulations.engine.state_store import NodeStates


@dataclass(frozen=True)
class Job:
    """A message for a node."""

    node: int
    metadata: dict[str, Any]
    state: str  # name of the node's state; empty if it has none
    content: bytes  # its records without large arrays, which are in the mail folder, once for all nodes
    codecs: dict[str, str] = field(default_factory=dict)  # of other packages, that the engine's process has imported


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
    prepare: Callable[[], object] | None  # loads what workers share; called before they are forked


def serve(connection: Connection, stack: int, site: WorkerContext, *, forward_logs: bool) -> None:
    """Run jobs until the engine closes the connection.

    Parameters
    ----------
    connection : Connection
        To the engine: it gets the process's id, then a pair of a result and log records for each job.
    stack : int
        Descriptor of the process's `StackFile`.
    site : WorkerContext
        What all workers share.
    forward_logs : bool
        Whether log records go to the engine; if not, to the handlers that this process has.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group: the engine stops its workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # else the exit codes of what clients start would be lost
    write_at_signal(stack)
    identify(site.run_id)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    # Otherwise all workers would draw the same numbers, and private noise that nodes share could be removed.
    random.seed()
    np.random.seed()  # noqa: NPY002
    records: SimpleQueue[logging.LogRecord] = SimpleQueue()
    if forward_logs:
        _collect_logs(records)
    mail, states = Blobs(site.mail, lasting=False), NodeStates(site.states)
    try:
        connection.send(os.getpid())
        while True:
            done = _work(pickle.loads(connection.recv_bytes()), site, mail, states)  # noqa: S301  from the engine itself
            logs = [records.get() for _ in range(records.qsize())]
            connection.send_bytes(pickle.dumps((done, logs), pickle.HIGHEST_PROTOCOL))
    except (EOFError, OSError):
        return


def _collect_logs(records: "SimpleQueue[logging.LogRecord]") -> None:
    """Make `records` the only handler of all loggers."""
    for logger in logging.Logger.manager.loggerDict.values():
        if isinstance(logger, logging.Logger):
            logger.handlers, logger.propagate = [], True
    logging.getLogger().handlers = [QueueHandler(records)]


def _work(job: Job, site: WorkerContext, mail: Blobs, states: NodeStates) -> JobResult:
    try:
        import_codecs(job.codecs)
        message = message_of(job.metadata, mail.load(job.content))
        context = Context(
            run_id=site.run_id,
            node_id=job.node,
            node_config={"partition-id": site.partition_of[job.node], "num-partitions": len(site.partition_of)},
            state=states.load(job.state),
            run_config=dict(site.run_config),
        )
        with forks_end_here():
            reply = site.app(message, context)
        return JobResult(*mail.dump(parts_of(reply)), states.write(context.state, job.state))
    except BaseException:  # noqa: BLE001  an error of a client, or its exit, fails only its reply
        return JobResult(b"", failure=traceback.format_exc())
