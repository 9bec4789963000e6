"""Handwritten digits, 8 x 8, Alpaydin and Kaynak 1998, https://doi.org/10.24432/C50P49; scikit-learn ships them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from fedpress.common.errors import DataError
from fedpress.common.rng import derive
from fedpress.common.settings import Value
from fedpress.settings.simulation import SimulationSettings
from fedpress.simulations.workloads import models
from fedpress.simulations.workloads.task import Data, Examples


@dataclass(frozen=True)
class Digits:
    """`digits`: 1,797 images of ten digits; a fifth is the test set, independent of the run's seed."""

    models: ClassVar[Mapping[str, Callable[[float], nn.Module]]] = {"mlp": models.mlp}
    defaults: ClassVar[Mapping[str, Value]] = {
        "clients": 100,
        "per-round": 10,
        "rounds": 40,
        "partition": "iid",
        "lr": 0.1,
        "momentum": 0.9,
        "batch-size": 8,
        "local-epochs": 5,
    }

    def load(self, settings: SimulationSettings) -> Data:
        rows = np.loadtxt(_file(), delimiter=",")
        images, labels = rows[:, :-1], rows[:, -1]
        x = torch.from_numpy((images / 16).astype(np.float32)).view(-1, 1, 8, 8)
        y = torch.from_numpy(labels.astype(np.int64))
        order = derive(0, "digits").permutation(len(labels))
        test, train = np.sort(order[: len(labels) // 5]), np.sort(order[len(labels) // 5 :])
        whole = Examples(x, y)
        return Data(whole.pick(train), whole.pick(test), labels[train].astype(np.int64), tuple("0123456789"))


def _file() -> Path:
    """Return the file in scikit-learn's package; importing the package would take two seconds and 100 MB."""
    package = find_spec("sklearn")
    if package is None or not package.submodule_search_locations:
        raise DataError("the digits come with scikit-learn: pip install 'fedpress[sim]'")
    file = Path(package.submodule_search_locations[0], "datasets", "data", "digits.csv.gz")
    if not file.exists():
        raise DataError(f"{file} is missing: install scikit-learn again")
    return file
