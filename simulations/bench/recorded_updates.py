"""Recorded updates to measure codecs on: of one client, in a federation without compression."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from fedpress.client.training.loop import train
from fedpress.common.errors import DataError, SettingError, unknown
from fedpress.common.rng import derive
from fedpress.common.settings import Value
from fedpress.compression import Layout, Update
from fedpress.compression.updates import difference
from fedpress.simulations.settings import resolve
from fedpress.simulations.workloads import task

SIDE = "side"  # folder of the mean updates of the round before


@dataclass(frozen=True)
class Recording:
    """A client's update in one round of a federation."""

    round: int
    config: Mapping[str, Value] = field(default_factory=dict)


_MCMAHAN: dict[str, Value] = {
    "workload": "fashion",
    "model": "mcmahan",
    "clients": 100,
    "batch-size": 10,
    "lr": 0.1,
    "per-round": 5,
}
_ONCE: dict[str, Value] = {"local-epochs": 1, "schedule": "constant"}
_IID: dict[str, Value] = {**_MCMAHAN, **_ONCE, "partition": "iid"}
RECORDINGS: Mapping[str, Recording] = {
    "digits": Recording(5, {"workload": "digits"}),
    "watch": Recording(5, {"workload": "watch"}),
    "cnn": Recording(5, {"workload": "fashion", "model": "cnn"}),
    "gru": Recording(3, {"workload": "speeches", "per-round": 4}),
    "mcmahan-1": Recording(1, _IID),
    "mcmahan-10": Recording(10, _IID),
    "mcmahan-20": Recording(20, _IID),
    "mcmahan-skew": Recording(
        10, {**_MCMAHAN, "partition": "dirichlet", "alpha": 0.1, "local-epochs": 5, "schedule": "constant"}
    ),
    "mcmahan-adam": Recording(10, {**_IID, "optimizer": "adam", "lr": 0.001}),
    "resnet18": Recording(
        3, {**_IID, "model": "resnet18", "per-round": 2, "batch-size": 16, "local-steps": 16, "lr": 0.05}
    ),
}


def record(names: tuple[str, ...], folder: Path, note: Callable[[str], None]) -> None:
    """Train, and write each update as NAME.safetensors; `note` is called with lines of progress."""
    for name in names:
        if name not in RECORDINGS:
            raise SettingError(unknown("recording", name, RECORDINGS))
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        note(f"{name}: training up to round {RECORDINGS[name].round}")
        update, before = _update(RECORDINGS[name])
        save_file(update, folder / f"{name}.safetensors")
        if before:
            (folder / SIDE).mkdir(exist_ok=True)
            save_file(before, folder / SIDE / f"{name}.safetensors")


def recorded(folder: Path) -> Iterator[tuple[str, Update, Update | None]]:
    """Yield name, update, and mean update of the round before, smallest first; raise DataError without any."""
    paths = sorted(folder.glob("*.safetensors"), key=lambda path: (path.stat().st_size, path.name))
    if not paths:
        raise DataError(f"{folder} holds no recorded updates: `fedpress bench record --out {folder}` makes them")
    for path in paths:
        side = folder / SIDE / path.name
        yield path.stem, load_file(path), load_file(side) if side.exists() else None


def _update(recording: Recording) -> tuple[Update, Update]:
    """Return the update, and the mean update of the round before, which every client has from the broadcast."""
    settings = resolve({"seed": 0, "partition": "iid", **recording.config})
    work, training = task(settings), settings.training
    weights, seed = work.initial(), settings.run.seed
    mean: Update = {}
    for number in range(1, recording.round + 1):
        chosen = derive(seed, "sample", number).choice(settings.clients, settings.server.per_round, replace=False)
        updates = []
        for node in chosen.tolist():
            model = work.model()
            model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
            place = {
                "round": number,
                "rounds": settings.server.rounds,
                "seed": seed,
                "partition": node,
                "device": "cpu",
            }
            train(model, work.examples(node), training, **place)
            new = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
            updates.append(difference(new, weights, Layout.of(weights)))
            if number == recording.round:
                return {name: np.array(array) for name, array in updates[0].items()}, mean
        mean = {
            name: np.asarray(np.mean([update[name] for update in updates], axis=0, dtype=array.dtype))
            if array.dtype.kind == "f"
            else updates[0][name]
            for name, array in weights.items()
        }
        weights = {n: array + mean[n] if array.dtype.kind == "f" else mean[n] for n, array in weights.items()}
    raise SettingError(f"the round of a recording must be at least 1, got {recording.round}")
