"""Federated learning without weights: FedMD, Li and Wang 2019, https://arxiv.org/abs/1910.03581.

What travels is what models say of public inputs that all have: one tensor, coded as models are. A node keeps a model of
its own: it learns what all say together, then from its own data, and says what it thinks now.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, RecordDict
from torch import Tensor, nn

from fedpress.client.training import Examples
from fedpress.compression.errors import DataError
from fedpress.compression.groups import SCORES
from fedpress.compression.message import KEY

_OWN = f"{KEY}.scores"  # where a node's state holds its model; the mod's memory has keys of its own
_BATCH = 100  # larger ones fall out of the cache


def recall(state: RecordDict) -> dict[str, Tensor]:
    """Return the weights that the node kept; nothing if it has kept none."""
    kept = state.array_records.get(_OWN)
    return {} if kept is None else {name: torch.from_numpy(array.numpy()) for name, array in kept.items()}


def keep(weights: ArrayRecord, state: RecordDict) -> None:
    """Keep the weights in the node's state."""
    state[_OWN] = weights


def digest(x: Tensor, consensus: np.ndarray, run: Callable[[Examples], object]) -> None:
    """Let `run`, which trains a model on examples, teach it what all say of `x`; nothing before anybody said anything.

    Raises
    ------
    DataError
        If there are no public inputs.
    """
    if not len(x):
        raise DataError("scores are exchanged on public inputs, and the task has none in its proxy")
    if consensus.any():
        run(_Public(x, torch.from_numpy(consensus.copy()).softmax(-1)))


def scores_record(model: nn.Module, x: Tensor, device: str) -> ArrayRecord:
    """Return what `model` says of `x`, float32 (n, ..., classes), as the record that goes to the server."""
    model.eval()
    with torch.no_grad():
        parts = [model(part.to(device)).cpu() for part in x.split(_BATCH)]  # type: ignore[no-untyped-call]
    return ArrayRecord({SCORES: Array(np.ascontiguousarray(torch.cat(parts).numpy()))})


@dataclass(frozen=True)
class _Public:
    """Inputs, and for each the chances of its classes."""

    x: Tensor
    y: Tensor
