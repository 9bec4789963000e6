"""The step that puts several thin layers in the place of a thick one.

- `svd`: a linear layer or a convolution as two, the first of fewer outputs (Zhang et al. 2016,
  https://arxiv.org/abs/1505.06798, without its data term).
- `spatial`: a convolution over the plane as one down the columns and one along the rows (Jaderberg et al. 2014,
  https://arxiv.org/abs/1405.3866).
- `tucker2`: a convolution as a pointwise one, a thinner core, and a pointwise one (Kim et al. 2016,
  https://arxiv.org/abs/1511.06530).
- `separable`: a convolution as a depthwise one, `rank` kernels an input channel, and a pointwise one (Guo et al. 2018,
  https://arxiv.org/abs/1808.05517).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Self, cast

import torch
from torch import Tensor, nn

from fedpress.compression.errors import PlanError, unknown
from fedpress.compression.model.step import Json, Step, layer_of, objects, put, wholes

Convolution = nn.Conv1d | nn.Conv2d
Matrices = tuple[Tensor, ...]  # each (..., rows, columns): a rank belongs to each


@dataclass(frozen=True)
class Factors:
    """In what way a layer is factorised, and to which ranks."""

    by: str
    ranks: tuple[int, ...]


@dataclass(frozen=True)
class Factorise(Step):
    """Puts a sequence of thin layers in the place of each layer named."""

    kind: ClassVar[str] = "factorise"
    layers: Mapping[str, Factors]

    @classmethod
    def read(cls, data: Mapping[str, Json]) -> Self:
        layers = {}
        for name, entry in objects(data, cls.kind, {"by", "ranks"}).items():
            if not isinstance(entry["by"], str) or entry["by"] not in WAYS:
                raise PlanError(unknown("way to factorise", str(entry["by"]), WAYS))
            layers[name] = Factors(entry["by"], wholes(entry["ranks"], f"'ranks' of layer {name!r}", 1))
        return cls(layers)

    def json(self) -> dict[str, Json]:
        return {"layers": {name: {"by": it.by, "ranks": list(it.ranks)} for name, it in self.layers.items()}}

    def apply(self, model: nn.Module, *, fill: bool) -> None:
        for name, factors in self.layers.items():
            module = layer_of(model, name)
            if not suits(module, factors.by):
                raise PlanError(f"layer {name!r} cannot be factorised by {factors.by}: it is {module}")
            most = tuple(min(matrix.shape[-2:]) for matrix in matrices(module, factors.by))
            if len(factors.ranks) != len(most) or any(
                rank > top for rank, top in zip(factors.ranks, most, strict=True)
            ):
                raise PlanError(
                    f"ranks of layer {name!r} by {factors.by} are at most {list(most)}, got {list(factors.ranks)}"
                )
            thin = WAYS[factors.by](module, factors.ranks, fill)
            put(model, name, thin.to(module.get_parameter("weight").dtype).train(module.training))


def suits(module: nn.Module, by: str) -> bool:
    """Whether a layer can be factorised in this way."""
    if by == "svd" and type(module) is nn.Linear:
        return True
    kinds = (nn.Conv2d,) if by == "spatial" else (nn.Conv1d, nn.Conv2d)
    if not isinstance(module, Convolution) or type(module) not in kinds:  # not one that shares, or anybody's own
        return False
    thin = set(module.kernel_size) == {1}
    plain = module.groups == 1 and module.padding_mode == "zeros" and not isinstance(module.padding, str)
    return plain and not (thin and by != "svd")


def matrices(module: nn.Module, by: str) -> Matrices:
    """Return what the ranks of a layer are ranks of."""
    weight = module.get_parameter("weight").detach()
    match by:
        case "spatial":  # (in * height, out * width)
            return (weight.permute(1, 2, 0, 3).flatten(2).flatten(0, 1),)
        case "tucker2":  # what comes in, what goes out
            return weight.transpose(0, 1).flatten(1), weight.flatten(1)
        case "separable":  # (in, out, places in the kernel)
            return (weight.flatten(2).transpose(0, 1),)
        case _:
            return (weight.flatten(1),)


def _svd(module: nn.Linear | Convolution, ranks: tuple[int, ...], fill: bool) -> nn.Sequential:
    (rank,) = ranks
    if isinstance(module, nn.Linear):
        first: nn.Module = nn.Linear(module.in_features, rank, bias=False)
        last: nn.Module = nn.Linear(rank, module.out_features, bias=module.bias is not None)
    else:
        first = _like(module, module.in_channels, rank)
        last = type(module)(rank, module.out_channels, 1, bias=module.bias is not None)
    if fill:
        left, right = _halves(matrices(module, "svd")[0], rank)
        _fill(first, right)
        _fill(last, left, module.bias)
    return nn.Sequential(first, last)


def _spatial(module: nn.Conv2d, ranks: tuple[int, ...], fill: bool) -> nn.Sequential:
    (rank,), (height, width) = ranks, module.kernel_size
    (down, along), (dy, dx) = module.stride, module.dilation
    top, side = cast(tuple[int, int], module.padding)  # see `suits`: not text
    inputs, outputs = module.in_channels, module.out_channels
    first = nn.Conv2d(inputs, rank, (height, 1), (down, 1), (top, 0), (dy, 1), bias=False)
    last = nn.Conv2d(rank, outputs, (1, width), (1, along), (0, side), (1, dx), bias=module.bias is not None)
    if fill:
        left, right = _halves(matrices(module, "spatial")[0], rank)
        _fill(first, left.view(inputs, height, rank).permute(2, 0, 1))
        _fill(last, right.view(rank, outputs, width).transpose(0, 1), module.bias)
    return nn.Sequential(first, last)


def _tucker2(module: Convolution, ranks: tuple[int, ...], fill: bool) -> nn.Sequential:
    kind, (fewer_in, fewer_out) = type(module), ranks
    first = kind(module.in_channels, fewer_in, 1, bias=False)
    core = _like(module, fewer_in, fewer_out)
    last = kind(fewer_out, module.out_channels, 1, bias=module.bias is not None)
    if fill:  # the higher-order SVD: each side's leading directions, and the weights seen along them
        sides = matrices(module, "tucker2")
        into, out = (
            torch.linalg.svd(side, full_matrices=False)[0][:, :rank] for side, rank in zip(sides, ranks, strict=True)
        )
        _fill(first, into.T)
        _fill(core, torch.einsum("oik,ip,oq->qpk", module.weight.detach().flatten(2), into, out))
        _fill(last, out, module.bias)
    return nn.Sequential(first, core, last)


def _separable(module: Convolution, ranks: tuple[int, ...], fill: bool) -> nn.Sequential:
    (rank,), inputs, outputs = ranks, module.in_channels, module.out_channels
    first = _like(module, inputs, inputs * rank, inputs)
    last = type(module)(inputs * rank, outputs, 1, bias=module.bias is not None)
    if fill:
        left, right = _halves(matrices(module, "separable")[0], rank)  # (in, out, rank), (in, rank, places)
        _fill(first, right)
        _fill(last, left.permute(1, 0, 2), module.bias)
    return nn.Sequential(first, last)


WAYS: Mapping[str, Callable[..., nn.Sequential]] = {
    "svd": _svd,
    "spatial": _spatial,
    "tucker2": _tucker2,
    "separable": _separable,
}


def _like(module: Convolution, inputs: int, outputs: int, groups: int = 1) -> Convolution:
    """Return a convolution that moves as `module` does, without a bias."""
    kernel, stride, padding, dilation = module.kernel_size, module.stride, module.padding, module.dilation
    return type(module)(inputs, outputs, kernel, stride, padding, dilation, groups, bias=False)  # type: ignore[arg-type]


def _halves(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return the two factors of the nearest matrices of this rank, the singular values shared between them."""
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    root = s[..., :rank].sqrt()
    return u[..., :rank] * root.unsqueeze(-2), v[..., :rank, :] * root.unsqueeze(-1)


def _fill(layer: nn.Module, weight: Tensor, bias: Tensor | None = None) -> None:
    layer.to(weight.dtype)
    with torch.no_grad():
        layer.get_parameter("weight").copy_(weight.reshape(layer.get_parameter("weight").shape))
        if bias is not None:
            layer.get_parameter("bias").copy_(bias)
