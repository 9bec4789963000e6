"""What `torch.compile` gives local training: `python -m fedpress.simulations.bench.compiled`."""

import json
import statistics
import time
from typing import Any

import torch

from fedpress.client.settings import Training
from fedpress.client.training import train
from fedpress.compression.settings import read
from fedpress.simulations.settings import resolve
from fedpress.simulations.workloads import task


def main() -> None:
    """Train the same node as it is and compiled, in turn; print seconds a node and the ratio, for two models."""
    torch.set_num_threads(1)
    for name in ("cnn", "mcmahan"):
        config = resolve({"workload": "fashion", "partition": "iid", "model": name})
        work, training = task(config), read(Training, config)
        plain = work.model()
        compiled: Any = torch.compile(work.model())
        began = time.perf_counter()
        _train(compiled, work.examples(0), training)
        first = time.perf_counter() - began
        times: dict[str, list[float]] = {"plain": [], "compiled": []}
        for _ in range(7):
            for label, model in (("plain", plain), ("compiled", compiled)):
                began = time.perf_counter()
                _train(model, work.examples(0), training)
                times[label].append(time.perf_counter() - began)
        medians = {label: statistics.median(spans) for label, spans in times.items()}
        row = {"model": name, "first_compiled": first, **medians, "ratio": medians["compiled"] / medians["plain"]}
        print(json.dumps(row))  # noqa: T201


def _train(model: torch.nn.Module, examples: object, training: Training) -> None:
    train(model, examples, training, round=1, rounds=1, seed=0, partition=0, device="cpu")  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
