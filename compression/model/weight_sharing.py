"""The step that shares weights by clustering their values, Han et al. 2016, https://arxiv.org/abs/1510.00149.

A layer's weight becomes a codebook, which is trained, and for each value its index, packed into the fewest bits:
files and messages get smaller. Inference does not get faster: `unpack` before it.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from fedpress.common.errors import DataError, PlanError, SettingError
from fedpress.compression.model.step import Choice, Json, Step, layer_of, objects, whole
from fedpress.compression.stages.quantize.kmeans import centroids, middles

MOST = 256  # clusters: an index has at most a byte
SHAREABLE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Embedding)


@dataclass(frozen=True)
class ShareWeights(Step):
    """Replaces the weights of layers by codebooks and indices."""

    kind: ClassVar[str] = "share"
    layers: Mapping[str, int]  # number of clusters of each layer's weight

    @classmethod
    def read(cls, data: Mapping[str, Json]) -> Self:
        layers = objects(data, cls.kind, {"clusters"})
        return cls({name: whole(it["clusters"], f"'clusters' of layer {name!r}", 1) for name, it in layers.items()})

    def json(self) -> dict[str, Json]:
        return {"layers": {name: {"clusters": clusters} for name, clusters in self.layers.items()}}

    def apply(self, model: nn.Module, *, fill: bool) -> None:
        for name, clusters in self.layers.items():
            module = layer_of(model, name)
            if not isinstance(module, SHAREABLE) or parametrize.is_parametrized(module):
                raise PlanError(f"weights of layer {name!r} cannot be shared: it is {module}")
            values = module.weight.detach().flatten()
            most = min(MOST, len(values))
            if clusters > most:
                raise PlanError(f"layer {name!r} must have at most {most} clusters, got {clusters}")
            book, places = _clustered(values, clusters) if fill else (values[:clusters], torch.zeros_like(values))
            shared = SharedWeight(book, places, module.weight.shape)
            parametrize.register_parametrization(module, "weight", shared)


class SharedWeight(nn.Module):
    """A weight as codebook and indices: the parametrization of its layer."""

    packed: Tensor  # uint8: indices, the first in the lowest bits

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
        """Return the codebook, (k,)."""
        del weight
        return self._book.to(self.packed.device)

    def forward(self, book: Tensor) -> Tensor:
        """Return the weight."""
        weight: Tensor = _Lookup.apply(book, self.places().int())  # type: ignore[no-untyped-call]
        return weight.view(self._shape)

    def places(self) -> Tensor:
        """Return the index of each value in the codebook, (n,)."""
        shifts = self._bits * torch.arange(8 // self._bits, dtype=torch.uint8, device=self.packed.device)
        places = (self.packed.unsqueeze(1) >> shifts) & ((1 << self._bits) - 1)
        return places.flatten()[: self._count]


class _Lookup(torch.autograd.Function):
    """The values of a codebook at indices.

    The gradient of a shared value is the mean of its users' gradients, where the paper has the sum: so the learning
    rates of plain weights suit codebooks.
    """

    @staticmethod
    def forward(ctx: Any, book: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        ctx.size = len(book)
        return book[places]

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (places,), (grad,) = ctx.saved_tensors, grads
        total = grad.new_zeros(ctx.size).index_add_(0, places, grad)
        return total / torch.bincount(places, minlength=ctx.size).clamp(min=1), None


def choose(model: nn.Module, clusters: int) -> Choice:
    """Return the step that shares the weights of each layer that gets smaller by it.

    Parameters
    ----------
    model : nn.Module
        The model; it is not changed.
    clusters : int
        Number of distinct values of each layer, 2 to 256.

    Raises
    ------
    SettingError
        If `clusters` is out of range, or no layer would get smaller.
    """
    if not 2 <= clusters <= MOST:
        raise SettingError(f"clusters must be 2 to {MOST}, got {clusters}")
    layers, left = {}, {}
    for name, module in model.named_modules():
        if not isinstance(module, SHAREABLE) or parametrize.is_parametrized(module):
            continue
        count = module.weight.numel()
        now, then = 4 * count, 4 * clusters + count * _bits(clusters) / 8
        if then < now:
            layers[name] = clusters
        else:
            left[name] = f"{then:,.0f} bytes with {clusters} values in common, {now:,} as it is"
    if not layers:
        raise SettingError("no layer of this model gets smaller by sharing values")
    return Choice(ShareWeights(layers), {name: ShareWeights({name: it}) for name, it in layers.items()}, left)


def unpack(model: nn.Module) -> nn.Module:
    """Return a copy with plain weights in place of shared ones."""
    plain = copy.deepcopy(model)
    for module in list(plain.modules()):
        if parametrize.is_parametrized(module, "weight"):
            weight = module.weight.detach()  # type: ignore[operator]
            # remove_parametrizations would change the class of the original model's layer, too.
            module.__class__ = parametrize.type_before_parametrizations(module)
            del module._modules["parametrizations"]
            module.register_parameter("weight", nn.Parameter(weight))
    return plain


def check_places(model: nn.Module) -> None:
    """Raise DataError if an index is beyond its codebook, as it can be in a file."""
    for name, module in model.named_modules():
        if isinstance(module, SharedWeight):
            most, size = int(module.places().max()), len(module._book)
            if most >= size:
                raise DataError(f"indices of {name} must be below {size}, the size of the codebook, got {most}")


def is_shared(model: nn.Module) -> bool:
    """Whether weights of a model are shared already."""
    return any(isinstance(module, SharedWeight) for module in model.modules())


def _bits(clusters: int) -> int:
    """Return the bits that the number of a place takes: they divide a byte."""
    return next(bits for bits in (1, 2, 4, 8) if 1 << bits >= clusters)


def _clustered(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return `k` centroids of `values`, (k,), and for each value the index of its centroid, (n,)."""
    book = centroids(values.numpy(), k)
    places = np.searchsorted(middles(book), values.numpy())
    padded = np.pad(book, (0, k - len(book)), mode="edge")  # fewer distinct values than `k`
    return torch.from_numpy(padded), torch.from_numpy(places)
