"""`simulate`: any Flower apps, in process."""

import os
import secrets
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from flwr.app import Context, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from fedpress.common.errors import SettingError
from fedpress.flower.runtime import identify
from fedpress.simulations.engine.grid import InProcessGrid
from fedpress.simulations.engine.pool import Pool
from fedpress.simulations.engine.worker import Site

_MEMORY = Path("/dev/shm")  # noqa: S108  a folder in memory, where there is one


@dataclass(frozen=True)
class Simulation:
    """What is left of a simulation."""

    context: Context  # the ServerApp's, with whatever it left in its state
    failures: int  # messages without a good reply
    startup_seconds: float  # until the ServerApp was called
    seconds: float  # in the ServerApp


def simulate(
    server_app: ServerApp,
    client_app: ClientApp,
    num_clients: int = 100,
    workers: int | None = None,
    *,
    run_config: Mapping[str, str | int | float | bool] | None = None,
    states: Path | None = None,
) -> Simulation:
    """Run `server_app` here and `client_app` in `workers` processes, as many as cores if None.

    Each of the `num_clients` nodes has its `partition-id` in its node configuration, as under Flower's own simulation
    runtime. Call it before the process starts threads or a GPU, from which workers could not be forked. What is
    loaded by then, a dataset above all, is shared with the workers and not copied. The nodes' states are kept in the
    folder `states`, to be gone on from; else in one that goes with the simulation.

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
        site = Site(client_app, run_id, config, partition_of, mail, kept, passing)
        pool = Pool(site, min(workers, num_clients))
        stack.callback(pool.close)
        grid = InProcessGrid(pool, partition_of, run_id, mail, kept)
        context = Context(run_id, 0, {}, RecordDict(), config)
        ready = time.monotonic()
        server_app(grid, context)
        return Simulation(context, grid.failures, ready - began, time.monotonic() - ready)


def _folder(stack: ExitStack, parent: Path | None) -> Path:
    return Path(
        stack.enter_context(tempfile.TemporaryDirectory(prefix="fedpress-", dir=parent, ignore_cleanup_errors=True))
    )
