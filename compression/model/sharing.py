"""The step that lets weights share values: by clusters of values (Han et al. 2016, https://arxiv.org/abs/1510.00149) or of rows.

A layer's weight becomes a codebook, which trains, and for each value or row the number of its place in there, packed
into as few bits as hold it: what lies on disk or goes out is that much smaller. It makes nothing faster: `unpack` for use.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from fedpress.compression.errors import PlanError, unknown
from fedpress.compression.model.step import Json, Step, layer_of, objects, whole
from fedpress.compression.stages.kmeans import centroids, middles

WAYS = ("values", "rows")
MOST = 256  # clusters: a number of a place is at most a byte
SHAREABLE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Embedding)
_ROUNDS = 20  # of Lloyd's algorithm


@dataclass(frozen=True)
class Clusters:
    """What of a layer's weight is shared, and how many different ones stay."""

    by: str
    clusters: int


@dataclass(frozen=True)
class Share(Step):
    """Makes codebooks of layers' weights."""

    kind: ClassVar[str] = "share"
    layers: Mapping[str, Clusters]

    @classmethod
    def read(cls, data: Mapping[str, Json]) -> Self:
        layers = {}
        for name, entry in objects(data, cls.kind, {"by", "clusters"}).items():
            if entry["by"] not in WAYS:
                raise PlanError(unknown("way to share", str(entry["by"]), WAYS))
            layers[name] = Clusters(entry["by"], whole(entry["clusters"], f"'clusters' of layer {name!r}", 1))
        return cls(layers)

    def json(self) -> dict[str, Json]:
        return {"layers": {name: {"by": it.by, "clusters": it.clusters} for name, it in self.layers.items()}}

    def apply(self, model: nn.Module, *, fill: bool) -> None:
        for name, it in self.layers.items():
            module = layer_of(model, name)
            if not isinstance(module, SHAREABLE) or parametrize.is_parametrized(module):
                raise PlanError(f"weights of layer {name!r} cannot be shared: it is {module}")
            most = min(MOST, module.weight.numel() if it.by == "values" else len(module.weight))
            if it.clusters > most:
                raise PlanError(f"layer {name!r} has at most {most} clusters of {it.by}, got {it.clusters}")
            rows = module.weight.detach().flatten(1) if it.by == "rows" else module.weight.detach().reshape(-1, 1)
            book, places = _clustered(rows, it.clusters) if fill else (rows[: it.clusters], rows.new_zeros(len(rows)))
            shared = Shared(book if it.by == "rows" else book[:, 0], places, module.weight.shape)
            parametrize.register_parametrization(module, "weight", shared)


class Shared(nn.Module):
    """A weight, from its codebook: the parametrization of a layer that shares."""

    packed: Tensor  # uint8: places, the first in the lowest bits

    def __init__(self, book: Tensor, places: Tensor, shape: torch.Size) -> None:
        super().__init__()
        self._book = book
        self._bits = next(bits for bits in (1, 2, 4, 8) if 1 << bits >= len(book))
        self._count, self._shape = len(places), shape
        each = 8 // self._bits
        padded = torch.zeros(-(-len(places) // each) * each, dtype=torch.uint8)
        padded[: len(places)] = places
        shifts = self._bits * torch.arange(each, dtype=torch.uint8)
        self.register_buffer("packed", (padded.view(-1, each) << shifts).sum(1, dtype=torch.uint8))

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the codebook, (k,) or (k, values of a row), of the weight that this was made for."""
        del weight
        return self._book.to(self.packed.device)

    def forward(self, book: Tensor) -> Tensor:
        """Return the weight."""
        shifts = self._bits * torch.arange(8 // self._bits, dtype=torch.uint8, device=book.device)
        places = (self.packed.unsqueeze(1) >> shifts) & ((1 << self._bits) - 1)
        return book[places.flatten()[: self._count].int()].view(self._shape)


def unpack(model: nn.Module) -> nn.Module:
    """Put plain weights, of the values that they have, in the place of shared ones; return `model`."""
    for module in list(model.modules()):
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
    return model


def _clustered(rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return `k` centroids (k, values of a row) of `rows`, and for each row the number of its own, (n,)."""
    if rows.shape[1] == 1:
        values = rows[:, 0].numpy()
        book = centroids(values, k)
        places = np.searchsorted(middles(book), values)
        padded = np.pad(book, (0, k - len(book)), mode="edge")  # fewer distinct values than asked for
        return torch.from_numpy(padded).unsqueeze(1), torch.from_numpy(places)
    book = _spread(rows, k)
    for _ in range(_ROUNDS):
        places = torch.cdist(rows, book).argmin(1)
        counts = torch.bincount(places, minlength=k).unsqueeze(1)
        sums = torch.zeros_like(book).index_add_(0, places, rows)
        book = torch.where(counts > 0, sums / counts.clamp(min=1), book)
    return book, torch.cdist(rows, book).argmin(1)


def _spread(rows: Tensor, k: int) -> Tensor:
    """Return `k` rows to begin with: the longest, then each time the one farthest from those chosen."""
    chosen = [int(rows.norm(dim=1).argmax())]
    apart = torch.cdist(rows, rows[chosen]).squeeze(1)
    while len(chosen) < k:
        chosen.append(int(apart.argmax()))
        apart = torch.minimum(apart, torch.cdist(rows, rows[chosen[-1:]]).squeeze(1))
    return rows[chosen].clone()
