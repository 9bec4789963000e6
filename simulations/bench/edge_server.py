"""The servers' side of `bench edge`: rounds in which nodes return what they got, as ours and as stock Flower runs them."""

import json
import os
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg, Strategy

from fedpress.server import Compressed
from fedpress.simulations.bench.edge_device import PLACE

HERE = "fedpress.simulations.bench.edge_server"
FLOATS, TIMES, FRAMES, RELEASE = "floats", "times.json", "frames.json", "release"  # files where server and bench meet

ours = ServerApp()
stock = ServerApp()


@ours.main()
def _ours(grid: Grid, context: Context) -> None:
    strategy = Compressed(_fedavg(context), up="none", down="none")
    _run(strategy, grid, context)
    frames = sum(entry.frame for entry in strategy.ledger)
    messages = sum(entry.message for entry in strategy.ledger)
    _write(FRAMES, {"frames": frames, "messages": messages})
    _wait()


@stock.main()
def _stock(grid: Grid, context: Context) -> None:
    _run(_fedavg(context), grid, context)
    _wait()


def _fedavg(context: Context) -> FedAvg:
    nodes = int(context.run_config["per-round"])
    return FedAvg(fraction_train=1e-9, fraction_evaluate=0.0, min_train_nodes=nodes, min_available_nodes=nodes)


def _run(strategy: Strategy, grid: Grid, context: Context) -> None:
    times: list[float] = []

    def clock(number: int, arrays: ArrayRecord) -> None:
        times.append(time.time())
        _write(TIMES, times)

    model = ArrayRecord({"x": _zeros(int((_place() / FLOATS).read_text()))})
    strategy.start(grid, model, num_rounds=int(context.run_config["rounds"]), evaluate_fn=clock)


def _zeros(floats: int) -> Array:
    return Array(np.zeros(floats, np.float32))


def _write(name: str, facts: object) -> None:
    part = _place() / f"{name}.part"
    part.write_text(json.dumps(facts))
    part.replace(_place() / name)


def _wait() -> None:
    """Stay until the bench has seen what it wants to see."""
    while not (_place() / RELEASE).exists():
        time.sleep(0.02)


def _place() -> Path:
    return Path(os.environ[PLACE])
