"""A workload, and a model that is not among its own."""

import numpy as np
import torch
from torch import nn

from fedpress.settings.simulation import SimulationSettings
from fedpress.simulations.workloads import Data, Examples


class Streets:
    """Points, told apart by the sign of their first coordinate; a client is a street."""

    models = {"line": lambda dropout: nn.Linear(2, 2)}  # noqa: RUF012
    defaults = {"clients": 6, "per-round": 3, "rounds": 2, "partition": "natural", "lr": 1.0}  # noqa: RUF012

    def load(self, settings: SimulationSettings) -> Data:
        rng = np.random.default_rng(0)
        x = rng.normal(size=(400, 2)).astype(np.float32)
        y = (x[:, 0] > 0).astype(np.int64)
        points = Examples(torch.from_numpy(x), torch.from_numpy(y))
        train, test = np.arange(300), np.arange(300, 400)
        return Data(points.pick(train), points.pick(test), y[:300], ("minus", "plus"), owners=train % 6)


def wide(dropout: float = 0.0) -> nn.Module:
    """Return a model of two layers."""
    return nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 2))
