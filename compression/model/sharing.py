"""The step that lets weights share: clusters of values, Han et al. 2016, https://arxiv.org/abs/1510.00149, or of rows.

A layer's weight becomes a codebook, which trains, and for each value or row the number of its place in there, packed
into as few bits as hold it: what lies on disk or goes out is that much smaller. Nothing gets faster: `unpack` to run.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from fedpress.compression.errors import DataError, PlanError, SettingError, unknown
from fedpress.compression.model.choice import Choice
from fedpress.compression.model.looking import weighted
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
        self._bits = _bits(len(book))
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
        weight: Tensor = _Taken.apply(book, self.places().int())  # type: ignore[no-untyped-call]
        return weight.view(self._shape)

    def places(self) -> Tensor:
        """Return the number of each value's, or each row's, place in the codebook, (n,)."""
        shifts = self._bits * torch.arange(8 // self._bits, dtype=torch.uint8, device=self.packed.device)
        places = (self.packed.unsqueeze(1) >> shifts) & ((1 << self._bits) - 1)
        return places.flatten()[: self._count]


class _Taken(torch.autograd.Function):
    """The values of a codebook at places.

    What is shared learns the mean of what its users would have learnt, where the paper has the sum: so the rates that
    suit plain weights suit codebooks.
    """

    @staticmethod
    def forward(ctx: Any, book: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        ctx.size = len(book)
        return book[places]

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (places,), (grad,) = ctx.saved_tensors, grads
        total = grad.new_zeros((ctx.size, *grad.shape[1:])).index_add_(0, places, grad)
        count = torch.bincount(places, minlength=ctx.size).clamp(min=1)
        return total / count.view(-1, *(1 for _ in grad.shape[1:])), None


def choose(model: nn.Module, x: Tensor, by: str, clusters: int = 16, share: float = 0.5) -> Choice:
    """Return the step that shares what of each layer gets smaller by it.

    Parameters
    ----------
    model
        Its weights stay as they are.
    x
        A few inputs, (n, ...): the layer that gives the answer does not share rows, since classes would be one.
    by
        `values`, of which each layer keeps `clusters`, or `rows`, of which it keeps `share`, 256 at most.
    clusters
        2 to 256 values a layer.
    share
        Of each layer's rows, above 0 and below 1.

    Raises
    ------
    SettingError
        If a number is out of range, or no layer would get smaller.
    """
    if by not in WAYS:
        raise SettingError(unknown("way to share", by, WAYS))
    if by == "values" and not 2 <= clusters <= MOST:
        raise SettingError(f"weights share 2 to {MOST} values, got {clusters}")
    if by == "rows" and not 0 < share < 1:
        raise SettingError(f"the share of rows is above 0 and below 1, got {share}")
    layers, left = {}, {}
    last = weighted(model, x)[-1]
    for name, module in model.named_modules():
        if not isinstance(module, SHAREABLE) or parametrize.is_parametrized(module):
            continue
        count, rows = module.weight.numel(), len(module.weight)
        if by == "rows" and name == last:
            left[name] = "its rows are the answers"
            continue
        k = clusters if by == "values" else min(MOST, max(1, round(share * rows)))
        now = 4 * count
        then = 4 * k + count * _bits(k) / 8 if by == "values" else 4 * k * count / rows + rows * _bits(k) / 8
        if then < now:
            layers[name] = Clusters(by, k)
            if by == "rows" and round(share * rows) > k:
                left[name] = (
                    f"{k} of {rows} rows stay different, the most there are, where {share} is {round(share * rows)}"
                )
        else:
            left[name] = f"{then:,.0f} bytes with {k} {by} in common, {now:,} as it is"
    if not layers:
        raise SettingError(f"no layer of this model gets smaller by sharing {by}")
    return Choice(Share(layers), {name: Share({name: it}) for name, it in layers.items()}, left)


def unpack(model: nn.Module) -> nn.Module:
    """Return a copy with plain weights, of the values that they have, in the place of shared ones."""
    plain = copy.deepcopy(model)
    for module in list(plain.modules()):
        if parametrize.is_parametrized(module, "weight"):
            weight = module.weight.detach()  # type: ignore[operator]
            # remove_parametrizations would change the class, which the model that this is a copy of has too.
            module.__class__ = parametrize.type_before_parametrizations(module)
            del module._modules["parametrizations"]
            module.register_parameter("weight", nn.Parameter(weight))
    return plain


def check_places(model: nn.Module) -> None:
    """Raise DataError if a place that weights name is beyond their codebook: a file may hold any."""
    for name, module in model.named_modules():
        if isinstance(module, Shared):
            most, size = int(module.places().max()), len(module._book)
            if most >= size:
                raise DataError(f"{name} names place {most} of a codebook of {size}")


def is_shared(model: nn.Module) -> bool:
    """Whether weights of a model are shared already."""
    return any(isinstance(module, Shared) for module in model.modules())


def _bits(clusters: int) -> int:
    """Return the bits that the number of a place takes: they divide a byte."""
    return next(bits for bits in (1, 2, 4, 8) if 1 << bits >= clusters)


def _clustered(rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return `k` centroids (k, values of a row) of `rows`, and for each row the number of its own, (n,)."""
    if rows.shape[1] == 1:
        values = rows[:, 0].numpy()
        book = centroids(values, k)
        places = np.searchsorted(middles(book), values)
        padded = np.pad(book, (0, k - len(book)), mode="edge")  # fewer distinct values than asked for
        return torch.from_numpy(padded).unsqueeze(1), torch.from_numpy(places)
    return _near(rows, k)


def _near(rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
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
