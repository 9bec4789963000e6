"""`simulate`: any Flower apps, in process."""

import os
import pkgutil
import secrets
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from flwr.app import Context, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from fedpress.common.errors import SettingError
from fedpress.common.forks import forks_end_here
from fedpress.common.settings import is_integer
from fedpress.flower.runtime import identify
from fedpress.simulations.engine.base import EngineRun
from fedpress.simulations.engine.grid import Arrives, InProcessGrid
from fedpress.simulations.engine.pool import Pool
from fedpress.simulations.engine.worker import WorkerContext

_MEMORY = Path("/dev/shm")  # noqa: S108  a folder in memory, if the system has one


@dataclass(frozen=True)
class Simulation:
    """The result of a simulation.

    Examples
    --------
    >>> Simulation(Context(1, 0, {}, RecordDict(), {}), failures=0, startup_seconds=0.1, seconds=2.0).failures
    0
    """

    context: Context  # of the ServerApp, with its state
    failures: int  # messages without a good reply
    startup_seconds: float  # before the call of the ServerApp
    seconds: float  # of the call


class _OneBlasThread:
    """Limits this process's BLAS while simulations run: it encodes while its workers train, on the same cores."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = 0

    def __enter__(self) -> None:
        from threadpoolctl import threadpool_limits  # an optional dependency, not needed to read a run's folder

        with self._lock:
            if not self._running:
                self._limits = threadpool_limits(1, user_api="blas")
            self._running += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._running -= 1
            if not self._running:
                self._limits.restore_original_limits()


_one_blas_thread = _OneBlasThread()


class InProcessEngine:
    """Runs the ServerApp in this process and ClientApps in worker processes: see `simulate`."""

    def run(self, run: EngineRun) -> None:
        """Run the federation until its ServerApp returns: see `Engine.run`."""
        server_app, client_app = (pkgutil.resolve_name(name) for name in (run.server_app, run.client_app))
        watched = ServerApp()

        @watched.main()
        def main(grid: Grid, context: Context) -> None:
            with run.watching:  # not earlier: it may start a thread, and then workers would not be forked
                server_app(grid, context)

        simulate(
            watched,
            client_app,
            run.num_clients,
            run.workers or None,
            run_config=run.run_config,
            states=run.states,
            arrives=run.arrives,
            prepare=run.prepare,
        )


def simulate(
    server_app: ServerApp,
    client_app: ClientApp,
    num_clients: int = 100,
    workers: int | None = None,
    *,
    run_config: Mapping[str, str | int | float | bool] | None = None,
    states: Path | None = None,
    arrives: Arrives | None = None,
    prepare: Callable[[], object] | None = None,
) -> Simulation:
    """Run a ServerApp in this process and a ClientApp in worker processes.

    Each node has its `partition-id` in its node configuration, as under Flower's own simulation runtime. Scripts and
    notebooks can call it, from any thread, and several times at once. Workers are forked from this process and share
    what is loaded, if that is safe. If this process has threads, uses a GPU, or has open sockets or pipes, they are
    started anew: `client_app` is then pickled, with functions and classes of `__main__`, and large arrays are in memory
    that workers share. Processes that clients start end with the simulation.

    Parameters
    ----------
    server_app : ServerApp
        The server's side.
    client_app : ClientApp
        The nodes' side.
    num_clients : int
        Number of nodes, at least 1.
    workers : int, optional
        Number of processes that run ClientApps, at least 1; the number of cores if None.
    run_config : mapping of str to str, int, float or bool, optional
        Flower's run configuration, for both apps.
    states : Path, optional
        Folder for the states of nodes, to resume from; a temporary one if None.
    arrives : callable, optional
        Returns whether a reply is in time, given the node's partition, the message and the reply; all are if None.
    prepare : callable, optional
        Loads what workers share; it is called once, in the process from which they are forked.

    Returns
    -------
    Simulation
        The ServerApp's context, the number of failures, and seconds.

    Raises
    ------
    SettingError
        If there is not at least one client and one worker, if `server_app` or `client_app` is not an app, or if
        `client_app` must be pickled and cannot be.
    FedpressError
        If a worker cannot load `client_app`.
    Exception
        Whatever the ServerApp raises; processes and temporary files are removed before.

    Examples
    --------
    >>> server_app, client_app = ServerApp(), ClientApp()
    >>> @server_app.main()
    ... def main(grid, context):
    ...     print(len(list(grid.get_node_ids())), "nodes")
    >>> simulate(server_app, client_app, num_clients=3, workers=1).failures
    3 nodes
    0
    """
    workers = len(os.sched_getaffinity(0)) if workers is None else workers
    for name, number in (("num_clients", num_clients), ("workers", workers)):
        if not is_integer(number) or number < 1:
            raise SettingError(f"{name} must be at least 1, and an integer, got {number!r}")
    for name, app in (("server_app", server_app), ("client_app", client_app)):
        if isinstance(app, type) or not callable(app):
            raise SettingError(f"{name} must be an app, such as {name.title().replace('_', '')}(), got {app!r}")
    began = time.monotonic()
    run_id = secrets.randbits(62)
    identify(run_id)
    config = dict(run_config or {})
    partition_of = {partition + 1: partition for partition in range(num_clients)}
    with ExitStack() as stack:
        mail = _folder(stack, _MEMORY if _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK) else None)
        kept = states or _folder(stack, None)
        kept.mkdir(parents=True, exist_ok=True)
        passing = (mail,) if states else (mail, kept)
        site = WorkerContext(
            app=client_app,
            run_id=run_id,
            run_config=config,
            partition_of=partition_of,
            mail=mail,
            states=kept,
            passing=passing,
            prepare=prepare,
        )
        stack.enter_context(_one_blas_thread)
        pool = Pool(site, min(workers, num_clients))
        stack.callback(pool.close)
        grid = InProcessGrid(pool, partition_of, run_id, mail=mail, states=kept, arrives=arrives)
        context = Context(run_id, 0, {}, RecordDict(), config)
        ready = time.monotonic()
        with forks_end_here():
            server_app(grid, context)
        return Simulation(context, grid.failures, ready - began, time.monotonic() - ready)


def _folder(stack: ExitStack, parent: Path | None) -> Path:
    return Path(
        stack.enter_context(tempfile.TemporaryDirectory(prefix="fedpress-", dir=parent, ignore_cleanup_errors=True))
    )
