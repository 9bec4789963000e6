"""The contenders of `bench engine`: the same federation run bare, in process, and on Ray, each in a fresh process.

`python -m fedpress.simulations.bench.engine_contenders NAME KIND SETTINGS OUT` runs one and writes the end time of
each round.
"""

import json
import multiprocessing
import os
import sys
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from fedpress.settings import RunSettings

ECHO_FLOATS = 1_600_000
HERE = "fedpress.simulations.bench.engine_contenders"

echo_client = ClientApp()
echo_server = ServerApp()
train_server = ServerApp()


@echo_client.train()
def _echo(message: Message, _: Context) -> Message:
    """Return the model unchanged."""
    content = {"arrays": message.content["arrays"], "metrics": MetricRecord({"num-examples": 1})}
    return Message(RecordDict(content), reply_to=message)


@echo_server.main()
def _echo_main(grid: Grid, context: Context) -> None:
    settings = RunSettings.from_config(context.run_config)
    strategy = FedAvg(fraction_train=1e-9, fraction_evaluate=0.0, min_train_nodes=settings.server.per_round)
    model = ArrayRecord([np.zeros(ECHO_FLOATS, np.float32)])
    clock = _Clock(Path(settings.run.out))
    strategy.start(grid, model, num_rounds=settings.server.rounds, evaluate_fn=clock)


@train_server.main()
def _train_main(grid: Grid, context: Context) -> None:
    from fedpress.protocol.arrays import model_record
    from fedpress.server import Compressed
    from fedpress.server.strategy.flower_strategies import build_strategy
    from fedpress.simulations.workloads import task

    settings = RunSettings.from_config(context.run_config)
    server = settings.server
    strategy = Compressed(build_strategy(settings), up=server.up, down=server.down)
    clock = _Clock(Path(settings.run.out))
    strategy.start(grid, model_record(task(settings).initial()), num_rounds=server.rounds, evaluate_fn=clock)


class _Clock:
    """Records the end of each round; called in place of an evaluation, which the bare loops do not have."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._times: list[float] = []

    def __call__(self, number: int, arrays: ArrayRecord) -> None:
        self._times.append(time.time())
        self._path.write_text(json.dumps(self._times))


def _bare(settings: RunSettings, loops: int) -> None:
    """Train the same number of nodes per round in plain loops, divided among `loops` processes."""
    import torch._dynamo

    from fedpress.simulations.workloads import task

    torch.set_num_threads(1)
    work = task(settings)
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(loops + 1)
    processes = [context.Process(target=_loop, args=(settings, work, loop, loops, barrier)) for loop in range(loops)]
    for process in processes:
        process.start()
    clock = _Clock(Path(settings.run.out))
    for number in range(settings.server.rounds + 1):
        barrier.wait()
        clock(number, ArrayRecord())
    for process in processes:
        process.join()


def _loop(settings: RunSettings, work: Any, loop: int, loops: int, barrier: Barrier) -> None:
    import torch
    from torch import nn

    model = work.model().to(memory_format=torch.channels_last)
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    barrier.wait()
    training, per_round = settings.training, settings.server.per_round
    for number in range(settings.server.rounds):
        for place in range(loop, per_round, loops):
            examples = work.examples((number * per_round + place) % settings.clients)
            x, y = examples.x.contiguous(memory_format=torch.channels_last), examples.y
            model.load_state_dict(start)
            model.train()
            optimizer = torch.optim.SGD(model.parameters(), training.lr, momentum=training.momentum)
            for _ in range(training.local_epochs):
                for batch in torch.randperm(len(x)).split(training.batch_size):  # type: ignore[no-untyped-call]
                    optimizer.zero_grad(set_to_none=True)
                    nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
        barrier.wait()


def main() -> None:
    """Run the contender of the command line."""
    name, kind, given, out = sys.argv[1:]
    settings = RunSettings.from_config({**json.loads(given), "run.out": out})
    clients, config = settings.clients, settings.to_config()
    engine, _, workers = name.partition("-")
    if engine == "bare":
        _bare(settings, int(workers))
    elif engine == "inprocess":
        from fedpress.simulations.engine import simulate

        if kind == "train":
            import torch._dynamo  # noqa: F401

            from fedpress.client.app import app
            from fedpress.simulations.workloads import task

            task(settings)
            simulate(train_server, app, clients, int(workers), run_config=config)
        else:
            simulate(echo_server, echo_client, clients, int(workers), run_config=config)
    else:
        from fedpress.simulations.engine.ray import run_ray

        client = "fedpress.client.app:app" if kind == "train" else f"{HERE}:echo_client"
        run_ray(f"{HERE}:{kind}_server", client, num_clients=clients, workers=int(workers), run_config=config)


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    main()
