"""Handwritten digits, 8 x 8, Alpaydin and Kaynak 1998, https://doi.org/10.24432/C50P49; scikit-learn ships them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise DataError("the digits come with scikit-learn: pip install 'fedpress[sim]'") from error
        images, labels = load_digits(return_X_y=True)
        x = torch.from_numpy((images / 16).astype(np.float32)).view(-1, 1, 8, 8)
        y = torch.from_numpy(labels.astype(np.int64))
        order = derive(0, "digits").permutation(len(labels))
        test, train = np.sort(order[: len(labels) // 5]), np.sort(order[len(labels) // 5 :])
        whole = Examples(x, y)
        return Data(whole.pick(train), whole.pick(test), labels[train].astype(np.int64), tuple("0123456789"))
