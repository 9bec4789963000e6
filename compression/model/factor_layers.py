"""The step that replaces a layer by two smaller ones, and the choice of layers and ranks.

- `svd`: a linear layer or a convolution as two, the first with fewer outputs (Zhang et al. 2016,
  https://arxiv.org/abs/1505.06798, without its data term).
- `spatial`: a convolution over the plane as one down the columns and one along the rows (Jaderberg et al. 2014,
  https://arxiv.org/abs/1405.3866).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Self, cast

import torch
from torch import Tensor, nn

from fedpress.common.errors import PlanError, SettingError, unknown
from fedpress.compression.model.step import Choice, Json, Step, layer_of, objects, put, whole

Convolution = nn.Conv1d | nn.Conv2d
FOR_LINEAR = "svd"  # whatever the method for convolutions


@dataclass(frozen=True)
class Factors:
    """The method by which a layer is factorised, and the rank."""

    by: str
    rank: int


@dataclass(frozen=True)
class Factorise(Step):
    """Replaces each of some layers by two smaller ones."""

    kind: ClassVar[str] = "factorise"
    layers: Mapping[str, Factors]

    @classmethod
    def read(cls, data: Mapping[str, Json]) -> Self:
        layers = {}
        for name, entry in objects(data, cls.kind, {"by", "rank"}).items():
            if not isinstance(entry["by"], str) or entry["by"] not in WAYS:
                raise PlanError(unknown("way to factorise", str(entry["by"]), WAYS))
            layers[name] = Factors(entry["by"], whole(entry["rank"], f"'rank' of layer {name!r}", 1))
        return cls(layers)

    def json(self) -> dict[str, Json]:
        return {"layers": {name: {"by": it.by, "rank": it.rank} for name, it in self.layers.items()}}

    def apply(self, model: nn.Module, *, fill: bool) -> None:
        for name, factors in self.layers.items():
            module = layer_of(model, name)
            if not suits(module, factors.by):
                raise PlanError(f"layer {name!r} cannot be factorised by {factors.by}: it is {module}")
            most = min(matrix(module, factors.by).shape)
            if factors.rank > most:
                raise PlanError(
                    f"the rank of layer {name!r} by {factors.by} must be at most {most}, got {factors.rank}"
                )
            thin = WAYS[factors.by](module, factors.rank, fill)
            put(model, name, thin.to(module.get_parameter("weight").dtype).train(module.training))


def suits(module: nn.Module, by: str) -> bool:
    """Return whether a layer can be factorised by this method."""
    if by == "svd" and type(module) is nn.Linear:
        return True
    kinds = (nn.Conv2d,) if by == "spatial" else (nn.Conv1d, nn.Conv2d)
    if not isinstance(module, Convolution) or type(module) not in kinds:  # subclasses may share weights
        return False
    thin = set(module.kernel_size) == {1}
    plain = module.groups == 1 and module.padding_mode == "zeros" and not isinstance(module.padding, str)
    return plain and not (thin and by != "svd")


def matrix(module: nn.Module, by: str) -> Tensor:
    """Return the weight of a layer as the matrix that `by` factorises, (rows, columns)."""
    weight = module.get_parameter("weight").detach()
    if by == "spatial":  # (in * height, out * width)
        return weight.permute(1, 2, 0, 3).flatten(2).flatten(0, 1)
    return weight.flatten(1)


def _svd(module: nn.Linear | Convolution, rank: int, fill: bool) -> nn.Sequential:
    if isinstance(module, nn.Linear):
        first: nn.Module = nn.Linear(module.in_features, rank, bias=False)
        last: nn.Module = nn.Linear(rank, module.out_features, bias=module.bias is not None)
    else:
        first = _like(module, module.in_channels, rank)
        last = type(module)(rank, module.out_channels, 1, bias=module.bias is not None)
    if fill:
        left, right = _halves(matrix(module, "svd"), rank)
        _fill(first, right)
        _fill(last, left, module.bias)
    return nn.Sequential(first, last)


def _spatial(module: nn.Conv2d, rank: int, fill: bool) -> nn.Sequential:
    height, width = module.kernel_size
    (down, along), (dy, dx) = module.stride, module.dilation
    top, side = cast(tuple[int, int], module.padding)  # not text, see `suits`
    inputs, outputs = module.in_channels, module.out_channels
    first = nn.Conv2d(inputs, rank, (height, 1), (down, 1), (top, 0), (dy, 1), bias=False)
    last = nn.Conv2d(rank, outputs, (1, width), (1, along), (0, side), (1, dx), bias=module.bias is not None)
    if fill:
        left, right = _halves(matrix(module, "spatial"), rank)
        _fill(first, left.view(inputs, height, rank).permute(2, 0, 1))
        _fill(last, right.view(rank, outputs, width).transpose(0, 1), module.bias)
    return nn.Sequential(first, last)


WAYS: Mapping[str, Callable[..., nn.Sequential]] = {"svd": _svd, "spatial": _spatial}


def _like(module: Convolution, inputs: int, outputs: int) -> Convolution:
    """Return a convolution with the geometry of `module`, without a bias."""
    kernel, stride, padding, dilation = module.kernel_size, module.stride, module.padding, module.dilation
    return type(module)(inputs, outputs, kernel, stride, padding, dilation, bias=False)  # type: ignore[arg-type]


def _halves(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return the two factors of the nearest matrix of this rank, each with the roots of the singular values."""
    u, s, v = torch.linalg.svd(weight, full_matrices=False)
    root = s[:rank].sqrt()
    return u[:, :rank] * root, v[:rank] * root.unsqueeze(1)


def _fill(layer: nn.Module, weight: Tensor, bias: Tensor | None = None) -> None:
    layer.to(weight.dtype)
    with torch.no_grad():
        layer.get_parameter("weight").copy_(weight.reshape(layer.get_parameter("weight").shape))
        if bias is not None:
            layer.get_parameter("bias").copy_(bias)


def choose(model: nn.Module, by: str, energy: float) -> Choice:
    """Return the step that factorises every layer that has fewer parameters afterwards.

    Parameters
    ----------
    model : nn.Module
        The model; it is not changed.
    by : str
        The method for convolutions, one of `WAYS`; with `svd` the smaller of `svd` and `spatial` is used for each.
        Linear layers are factorised by `svd`.
    energy : float
        The share of the sum of squared singular values that the rank keeps, above 0 and at most 1.

    Raises
    ------
    SettingError
        If there is no such method, `energy` is out of range, or no layer would get smaller.
    """
    if by not in WAYS:
        raise SettingError(unknown("way to factorise", by, WAYS))
    if not 0 < energy <= 1:
        raise SettingError(f"the energy to keep must be above 0 and at most 1, got {energy}")
    layers, left = {}, {}
    for name, module in model.named_modules():
        ways = (FOR_LINEAR,) if type(module) is nn.Linear else ("svd", "spatial") if by == "svd" else (by,)
        options = [Factors(way, rank_of(module, way, energy)) for way in ways if suits(module, way)]
        if not options:
            continue
        sizes = [_size(WAYS[it.by](module, it.rank, False)) for it in options]
        least = min(range(len(options)), key=sizes.__getitem__)
        if sizes[least] < _size(module):
            layers[name] = options[least]
        else:
            left[name] = f"{sizes[least]:,} parameters with {energy:.0%} of its energy, {_size(module):,} as it is"
    if not layers:
        raise SettingError(f"no layer of this model gets smaller by {by} with {energy:.0%} of its energy kept")
    return Choice(Factorise(layers), {name: Factorise({name: it}) for name, it in layers.items()}, left)


def rank_of(module: nn.Module, by: str, energy: float) -> int:
    """Return the lowest rank that keeps this share of the energy of a layer's weight."""
    kept = (torch.linalg.svdvals(matrix(module, by).double()) ** 2).cumsum(0)
    return min(int((kept < energy * kept[-1]).sum()) + 1, len(kept))


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
