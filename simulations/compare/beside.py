"""What others wrote, beside the candidates: the bytes of flwr's SecAgg+, and of NNCodec where it is installed."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.numpy import load_file

from fedpress.client.settings import Training
from fedpress.client.training import train
from fedpress.compression import Layout, Update, parse
from fedpress.compression.files import replace
from fedpress.compression.message import LOSSLESS, difference
from fedpress.compression.rng import derive
from fedpress.compression.settings import read
from fedpress.server.record import MODEL, TRAFFIC
from fedpress.simulations.bench.codec import nmse
from fedpress.simulations.bench.peer import bytes_at, run, sweep
from fedpress.simulations.compare.cells import Cell
from fedpress.simulations.compare.runner import Done
from fedpress.simulations.compare.secagg import measure
from fedpress.simulations.network.clock import read_visits
from fedpress.simulations.workloads import task

SECAGG, NNCODEC = "secagg.json", "nncodec"  # what is measured once, kept in the comparison's folder
DEFAULT = (-38, 0.0)  # the quantisation parameter and lambda_scale of NNCodec 2.1.3, if none are given


def beside(done: Sequence[Done], folder: Path, nncodec: Path | None) -> dict[str, list[dict[str, Any]]]:
    """Return rows of bytes for each workload that ran; `nncodec` is the python of an environment that has it.

    Raises SettingError if it has none that works.
    """
    firsts: dict[str, Done] = {}
    for one in done:
        if one.result:
            firsts.setdefault(one.cell.workload, one)
    rows: dict[str, list[dict[str, Any]]] = {"secagg": [], "nncodec": []}
    for workload, first in firsts.items():
        rows["secagg"] += [{"workload": workload, **row} for row in _secagg(first, folder)]
        if nncodec is not None and "app" not in first.cell.config:
            specs = dict.fromkeys(one.cell.candidate.up for one in done if one.cell.workload == workload)
            rows["nncodec"] += [{"workload": workload, **row} for row in _nncodec(first.cell, specs, nncodec, folder)]
    return rows


def _secagg(one: Done, folder: Path) -> list[dict[str, Any]]:
    """Return what SecAgg+ costs a node in a round, with this run's model and as many nodes as its first round had."""
    model = load_file(one.folder / MODEL)
    nodes = sum(visit.round == 1 for visit in read_visits(one.folder / TRAFFIC))
    known = json.loads((folder / SECAGG).read_bytes()) if (folder / SECAGG).exists() else {}
    key = f"flwr {version('flwr')}, {nodes} nodes, {Layout.of(model).digest.hex()}"
    if key not in known:
        cost = measure(model, nodes)
        known[key] = [asdict(cost)] if cost else []
        replace(folder / SECAGG, json.dumps(known, indent=1).encode())
    return list(known[key])


def _nncodec(cell: Cell, specs: Sequence[str] | dict[str, None], python: Path, folder: Path) -> list[dict[str, Any]]:
    """Return for each codec what it and NNCodec make of one update, at the codec's own error."""
    update = _update(cell)
    layout = Layout.of(update)
    points = sweep(python, update, folder / NNCODEC)
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


def _update(cell: Cell) -> Update:
    """Return what the first node's training changes in the initial model."""
    work, config = task(cell.config), cell.config
    initial, model = work.initial(), work.model()
    model.load_state_dict({name: torch.from_numpy(array) for name, array in initial.items()})
    place: dict[str, Any] = {"round": 1, "rounds": int(config["rounds"]), "seed": cell.seed, "partition": 0}
    train(model, work.examples(0), read(Training, config), **place, device=str(config["device"]))
    new = {name: tensor.detach().cpu().numpy() for name, tensor in model.state_dict().items()}
    return difference(new, initial, Layout.of(initial))
