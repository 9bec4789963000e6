"""Shoulder exercises, recorded by a smart watch, Burns et al. 2018, https://arxiv.org/abs/1802.01489."""

import importlib.util
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from fedpress.common.errors import DataError
from fedpress.common.settings import Value
from fedpress.settings.simulation import SimulationSettings
from fedpress.simulations.workloads import models
from fedpress.simulations.workloads.task import Data, Examples

WINDOW, STRIDE = 100, 50  # samples: two seconds at 50 Hz, half of it shared with the next window
UNSEEN = (9, 10)  # the people of the test set


@dataclass(frozen=True)
class Watch:
    """`watch`: 10 people, 7 exercises, 140 recordings of 6 axes at 50 Hz; two people are the test set.

    Each of the other eight is a client; with more clients a person's recordings are divided among several.
    """

    models: ClassVar[Mapping[str, Callable[[float], nn.Module]]] = {"cnn1d": models.cnn1d}
    defaults: ClassVar[Mapping[str, Value]] = {
        "clients": 8,
        "per-round": 8,
        "rounds": 40,
        "partition": "natural",
        "lr": 0.05,
        "momentum": 0.9,
        "batch-size": 32,
        "local-epochs": 1,
    }

    def load(self, settings: SimulationSettings) -> Data:
        recordings = _recordings()
        windows, labels, people, groups = [], [], [], []
        for number, (series, label, person) in enumerate(
            zip(recordings["X"], recordings["y"], recordings["subject"], strict=True)
        ):
            for first in range(0, len(series) - WINDOW + 1, STRIDE):
                windows.append(np.asarray(series[first : first + WINDOW], np.float32).T)
                labels.append(int(label))
                people.append(int(person))
                groups.append(number)
        x, owner = np.stack(windows), np.array(people)
        seen = ~np.isin(owner, UNSEEN)
        # Scaled by statistics of the training set only.
        mean = x[seen].mean((0, 2), keepdims=True, dtype=np.float64)
        spread = x[seen].std((0, 2), keepdims=True, dtype=np.float64)
        scaled = torch.from_numpy(((x - mean) / spread).astype(np.float32))
        target = np.array(labels, np.int64)
        whole = Examples(scaled, torch.from_numpy(target))
        train, test = np.flatnonzero(seen), np.flatnonzero(~seen)
        return Data(
            whole.pick(train),
            whole.pick(test),
            target[train],
            tuple(map(str, recordings["y_labels"])),
            owner[train].astype(np.int64),
            np.array(groups, np.int64)[train],
        )


def _recordings() -> dict[str, list[np.ndarray]]:
    # The package itself is not imported: it needs pandas, its data does not.
    found = importlib.util.find_spec("seglearn")
    folder = next(iter(found.submodule_search_locations or []), None) if found else None
    path = Path(folder or ".") / "data" / "watch_dataset.npy"
    if folder is None or not path.is_file():
        raise DataError("the smart watch's recordings come with seglearn: pip install 'fedpress[sim]'")
    try:
        # A pickle, but from an installed package, which is trusted as its code is.
        recordings: dict[str, list[np.ndarray]] = np.load(path, allow_pickle=True).item()
    except (OSError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise DataError(f"{path} is cut short, install seglearn again: {error}") from error
    return recordings
