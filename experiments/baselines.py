#!/usr/bin/env python3
"""Measure codecs and NNCodec on one real update of a workload, at the error of each codec.

    python experiments/baselines.py PYTHON --workload fashion --codecs "qsgd(4) | ans; best(nmse=0.1)"

PYTHON is the interpreter of an environment that has NNCodec (`pip install nncodec==2.1.3`). The update is what the
first node's training changes in the initial model. Prints JSON.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from nncodec import bytes_at, run, sweep

from fedpress.client.training.loop import train
from fedpress.common.rng import derive
from fedpress.compression import Layout, Update, parse
from fedpress.compression.updates import difference
from fedpress.protocol.messages import LOSSLESS
from fedpress.settings import RunSettings
from fedpress.simulations.bench.codec import nmse
from fedpress.simulations.settings import resolve
from fedpress.simulations.workloads import task

DEFAULT = (-38, 0.0)  # the quantisation parameter and lambda_scale of NNCodec 2.1.3, if none are given


def compare(update: Update, specs: Sequence[str], python: Path, cache: Path) -> list[dict[str, Any]]:
    """Return for each codec what it and NNCodec make of `update`, at the error of the codec."""
    layout = Layout.of(update)
    points = sweep(python, update, cache)
    (plain,) = run(python, update, [DEFAULT], repeats=1)
    rows: list[dict[str, Any]] = [
        {"codec": "NNCodec's default", "nmse": plain.nmse, "bytes": plain.bytes, "nncodec": plain.bytes}
    ]
    for spec in specs:
        codec = parse(spec)
        frame, _ = codec.encode(update, codec.init(layout), derive(0, "beside"))
        error = nmse(layout.flatten(update)[0], layout.flatten(codec.decode(frame, layout))[0])
        theirs = bytes_at(points, error) if error > 0 and spec != LOSSLESS else None
        rows.append({"codec": spec, "nmse": error, "bytes": len(frame), "nncodec": theirs})
    return rows


def first_update(settings: RunSettings) -> Update:
    """Return what the training of the first node changes in the initial model."""
    work = task(settings)
    initial, model = work.initial(), work.model()
    model.load_state_dict({name: torch.from_numpy(array) for name, array in initial.items()})
    place: dict[str, Any] = {"round": 1, "rounds": settings.server.rounds, "seed": settings.run.seed, "partition": 0}
    train(model, work.examples(0), settings.training, **place, device=settings.run.device)
    new = {name: tensor.detach().cpu().numpy() for name, tensor in model.state_dict().items()}
    return difference(new, initial, Layout.of(initial))


def main() -> None:
    """Print the rows as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python", type=Path)
    parser.add_argument("--workload", default="digits")
    parser.add_argument("--codecs", required=True, help="specs, with semicolons")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=Path("nncodec-cache"))
    given = parser.parse_args()
    specs = [str(parse(spec)) for spec in given.codecs.split(";") if spec.strip()]
    update = first_update(resolve({"workload": given.workload, "seed": given.seed}))
    print(json.dumps(compare(update, specs, given.python, given.cache)))


if __name__ == "__main__":
    main()
