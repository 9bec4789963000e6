"""`simulate`: any Flower apps, in process."""

import os
import pkgutil
import secrets
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from flwr.app import Context, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from fedpress.common.errors import SettingError
from fedpress.flower.runtime import identify
from fedpress.simulations.engine.base import EngineRun
from fedpress.simulations.engine.grid import Arrives, InProcessGrid
from fedpress.simulations.engine.pool import Pool
from fedpress.simulations.engine.worker import WorkerContext

_MEMORY = Path("/dev/shm")  # noqa: S108  a folder in memory, where there is one


@dataclass(frozen=True)
class Simulation:
    """What is left of a simulation."""

    context: Context  # the ServerApp's, with whatever it left in its state
    failures: int  # messages without a good reply
    startup_seconds: float  # until the ServerApp was called
    seconds: float  # in the ServerApp


class InProcessEngine:
    """Runs the ServerApp in this process and ClientApps in worker processes: see `simulate`."""

    def run(self, run: EngineRun) -> None:
        """Run the federation until its ServerApp returns: see `Engine.run`."""
        server_app, client_app = (pkgutil.resolve_name(name) for name in (run.server_app, run.client_app))
        if "torch" in sys.modules:
            import torch._dynamo  # noqa: F401  making an optimiser imports it: once here, not once in each worker
        watched = ServerApp()

        @watched.main()
        def main(grid: Grid, context: Context) -> None:
            with run.watching:  # only now: workers cannot be forked from a process that has threads
                server_app(grid, context)

        simulate(
            watched,
            client_app,
            run.num_clients,
            run.workers or None,
            run_config=run.run_config,
            states=run.states,
            arrives=run.arrives,
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
) -> Simulation:
    """Run `server_app` here and `client_app` in `workers` processes, as many as cores if None.

    Each of the `num_clients` nodes has its `partition-id` in its node configuration, as under Flower's own simulation
    runtime. Call it before the process starts threads or a GPU, from which workers could not be forked. What is
    loaded by then, a dataset above all, is shared with the workers and not copied. The nodes' states are kept in the
    folder `states`, to resume from; else in one that is removed with the simulation. `arrives` decides, given a node's
    partition, a message and the reply, whether the reply is in time; all are if it is None.

    Raises
    ------
    SettingError
        If there is not at least one client and one worker.
    Exception
        Whatever the ServerApp raises. All processes and temporary files are gone by then.
    """
    if num_clients < 1:
        raise SettingError(f"a simulation has at least one client, got {num_clients}")
    workers = len(os.sched_getaffinity(0)) if workers is None else workers
    if workers < 1:
        raise SettingError(f"a simulation has at least one worker, got {workers}")
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
        site = WorkerContext(client_app, run_id, config, partition_of, mail, kept, passing)
        pool = Pool(site, min(workers, num_clients))
        stack.callback(pool.close)
        grid = InProcessGrid(pool, partition_of, run_id, mail=mail, states=kept, arrives=arrives)
        context = Context(run_id, 0, {}, RecordDict(), config)
        ready = time.monotonic()
        server_app(grid, context)
        return Simulation(context, grid.failures, ready - began, time.monotonic() - ready)


def _folder(stack: ExitStack, parent: Path | None) -> Path:
    return Path(
        stack.enter_context(tempfile.TemporaryDirectory(prefix="fedpress-", dir=parent, ignore_cleanup_errors=True))
    )
