"""The contenders of `bench engine`: the same federation run bare, in process, and on Ray, each in a fresh process.

`python -m fedpress.simulations.bench.engine_contenders NAME KIND SETTINGS OUT` runs one and writes when each round
ended.
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

ECHO_FLOATS = 1_600_000
HERE = "fedpress.simulations.bench.engine_contenders"

echo_client = ClientApp()
echo_server = ServerApp()
train_server = ServerApp()


@echo_client.train()
def _echo(message: Message, _: Context) -> Message:
    """Return what came."""
    content = {"arrays": message.content["arrays"], "metrics": MetricRecord({"num-examples": 1})}
    return Message(RecordDict(content), reply_to=message)


@echo_server.main()
def _echo_main(grid: Grid, context: Context) -> None:
    config = context.run_config
    strategy = FedAvg(fraction_train=1e-9, fraction_evaluate=0.0, min_train_nodes=int(config["per-round"]))
    model = ArrayRecord([np.zeros(ECHO_FLOATS, np.float32)])
    clock = _Clock(Path(str(config["times"])))
    strategy.start(grid, model, num_rounds=int(config["rounds"]), evaluate_fn=clock)


@train_server.main()
def _train_main(grid: Grid, context: Context) -> None:
    from fedpress.protocol.arrays import model_record
    from fedpress.server import Compressed
    from fedpress.server.strategy.flower_strategies import build_strategy
    from fedpress.simulations.workloads import task

    config = context.run_config
    strategy = Compressed(build_strategy(config), up=str(config["up"]), down=str(config["down"]))
    clock = _Clock(Path(str(config["times"])))
    strategy.start(grid, model_record(task(config).initial()), num_rounds=int(config["rounds"]), evaluate_fn=clock)


class _Clock:
    """Writes down when each round ended; in the place of an evaluation, which the bare loops have none of."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._times: list[float] = []

    def __call__(self, number: int, arrays: ArrayRecord) -> None:
        self._times.append(time.time())
        self._path.write_text(json.dumps(self._times))


def _bare(config: dict[str, Any], loops: int) -> None:
    """Train the same number of nodes a round with nothing around it, shared out among `loops` processes."""
    import torch._dynamo

    from fedpress.simulations.workloads import task

    torch.set_num_threads(1)
    work = task(config)
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(loops + 1)
    processes = [context.Process(target=_loop, args=(config, work, loop, loops, barrier)) for loop in range(loops)]
    for process in processes:
        process.start()
    clock = _Clock(Path(config["times"]))
    for number in range(int(config["rounds"]) + 1):
        barrier.wait()
        clock(number, ArrayRecord())
    for process in processes:
        process.join()


def _loop(config: dict[str, Any], work: Any, loop: int, loops: int, barrier: Barrier) -> None:
    import torch
    from torch import nn

    model = work.model().to(memory_format=torch.channels_last)
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    barrier.wait()
    for number in range(int(config["rounds"])):
        for place in range(loop, int(config["per-round"]), loops):
            examples = work.examples((number * int(config["per-round"]) + place) % int(config["clients"]))
            x, y = examples.x.contiguous(memory_format=torch.channels_last), examples.y
            model.load_state_dict(start)
            model.train()
            optimizer = torch.optim.SGD(model.parameters(), float(config["lr"]), momentum=float(config["momentum"]))
            for _ in range(int(config["local-epochs"])):
                for batch in torch.randperm(len(x)).split(int(config["batch-size"])):  # type: ignore[no-untyped-call]
                    optimizer.zero_grad(set_to_none=True)
                    nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
        barrier.wait()


def main() -> None:
    """Run the contender that the process was called with."""
    name, kind, settings, out = sys.argv[1:]
    config = {**json.loads(settings), "times": out}
    engine, _, workers = name.partition("-")
    if engine == "bare":
        _bare(config, int(workers))
    elif engine == "inprocess":
        from fedpress.simulations.engine import simulate

        if kind == "train":
            import torch._dynamo  # noqa: F401

            from fedpress.client.app import app
            from fedpress.simulations.workloads import task

            task(config)
            simulate(train_server, app, int(config["clients"]), int(workers), run_config=config)
        else:
            simulate(echo_server, echo_client, int(config["clients"]), int(workers), run_config=config)
    else:
        from fedpress.simulations.engine.ray import run_ray

        client = "fedpress.client.app:app" if kind == "train" else f"{HERE}:echo_client"
        run_ray(
            f"{HERE}:{kind}_server", client, num_clients=int(config["clients"]), workers=int(workers), run_config=config
        )


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    main()
