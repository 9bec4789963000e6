"""A workload with two models for the digits."""

from collections.abc import Callable, Mapping
from typing import ClassVar

from torch import nn

from fedpress.simulations.workloads import models
from fedpress.simulations.workloads.digits import Digits


def slim(dropout: float) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.Tanh(), nn.Dropout(dropout), nn.Linear(24, 10))


class Twins(Digits):
    models: ClassVar[Mapping[str, Callable[[float], nn.Module]]] = {"mlp": models.mlp, "slim": slim, "mlp2": models.mlp}


twins = Twins()
