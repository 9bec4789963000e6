"""The step that removes channels of layers."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from fedpress.common.errors import PlanError
from fedpress.compression.model.step import Json, Step, layer_of, objects, wholes

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
PRUNABLE = (*CONVOLUTIONS, *NORMS, nn.Linear)


@dataclass(frozen=True)
class KeptChannels:
    """Indices of the outputs and inputs that a layer keeps, ascending; None for all."""

    out: tuple[int, ...] | None = None
    inputs: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Prune(Step):
    """Keeps some outputs and inputs of layers, which must match from layer to layer."""

    kind: ClassVar[str] = "prune"
    layers: Mapping[str, KeptChannels]

    @classmethod
    def read(cls, data: Mapping[str, Json]) -> Self:
        return cls({name: _kept(name, entry) for name, entry in objects(data, cls.kind, {"out", "in"}).items()})

    def json(self) -> dict[str, Json]:
        layers = {
            name: {"out": kept.out and list(kept.out), "in": kept.inputs and list(kept.inputs)}
            for name, kept in self.layers.items()
        }
        return {"layers": layers}

    def apply(self, model: nn.Module, *, fill: bool) -> None:
        for name, kept in self.layers.items():
            module = layer_of(model, name)
            if parametrize.is_parametrized(module):
                raise PlanError(f"channels of layer {name!r} must be removed before its weights are shared")
            if isinstance(module, CONVOLUTIONS):
                _convolution(name, module, kept)
            elif isinstance(module, nn.Linear):
                _linear(name, module, kept)
            elif isinstance(module, NORMS):
                _norm(name, module, kept)
            else:
                raise PlanError(f"channels of {name!r} cannot be removed: it is a {type(module).__name__}")


def _kept(name: str, entry: Mapping[str, Json]) -> KeptChannels:
    sides: list[tuple[int, ...] | None] = []
    for side in ("out", "in"):
        if entry[side] is None:
            sides.append(None)
            continue
        at = wholes(entry[side], f"{side!r} of layer {name!r}", 0)
        if any(a >= b for a, b in pairwise(at)):
            raise PlanError(f"{side!r} of layer {name!r} must be strictly ascending")
        sides.append(at)
    return KeptChannels(*sides)


def _at(name: str, side: str, kept: tuple[int, ...] | None, size: int) -> Tensor:
    """Return the numbers kept of `size`."""
    if kept is None:
        return torch.arange(size)
    if kept[-1] >= size:
        raise PlanError(f"layer {name!r} has {size} {side}, the plan keeps number {kept[-1]}")
    return torch.tensor(kept)


def _linear(name: str, module: nn.Linear, kept: KeptChannels) -> None:
    out = _at(name, "outputs", kept.out, module.out_features)
    inputs = _at(name, "inputs", kept.inputs, module.in_features)
    _set(module, "weight", module.weight[out][:, inputs])
    _set(module, "bias", None if module.bias is None else module.bias[out])
    module.out_features, module.in_features = len(out), len(inputs)


def _norm(name: str, module: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d, kept: KeptChannels) -> None:
    out = _at(name, "channels", kept.out, module.num_features)
    for part in ("weight", "bias", "running_mean", "running_var"):
        tensor = getattr(module, part)
        _set(module, part, None if tensor is None else tensor[out])
    module.num_features = len(out)


def _convolution(name: str, module: nn.Conv1d | nn.Conv2d | nn.Conv3d, kept: KeptChannels) -> None:
    groups, size = module.groups, module.out_channels
    out = _at(name, "outputs", kept.out, size)
    if depthwise(module):  # each channel is a group: outputs and inputs are removed together
        if kept.inputs not in (None, kept.out):
            raise PlanError(f"layer {name!r} is depthwise: it keeps the same inputs as outputs")
        weight = module.weight[out]
        module.groups = module.in_channels = len(out)
    else:
        inputs = _at(name, "inputs", kept.inputs, module.in_channels)
        rows = _by_group(name, "outputs", out, size, groups)
        columns = _by_group(name, "inputs", inputs, module.in_channels, groups)
        each = module.in_channels // groups
        parts = [
            module.weight[row][:, column - each * g] for g, (row, column) in enumerate(zip(rows, columns, strict=True))
        ]
        weight = torch.cat(parts)
        module.in_channels = len(inputs)
    _set(module, "weight", weight)
    _set(module, "bias", None if module.bias is None else module.bias[out])
    module.out_channels = len(out)


def size_of(module: nn.Module, side: str) -> int:
    """Return the number of outputs or inputs of a layer whose channels can be removed."""
    if isinstance(module, NORMS):
        return int(module.num_features)
    if isinstance(module, nn.Linear):
        return int(module.out_features if side == "out" else module.in_features)
    return int(getattr(module, "out_channels" if side == "out" else "in_channels"))


def depthwise(module: nn.Module) -> bool:
    """Return whether each channel of a convolution is a group, in its inputs and outputs."""
    groups = getattr(module, "groups", 1)
    return groups > 1 and groups == getattr(module, "in_channels", 0) == getattr(module, "out_channels", 0)


def _by_group(name: str, side: str, at: Tensor, size: int, groups: int) -> list[Tensor]:
    """Return the kept numbers of each group: as many of every one."""
    counts = torch.bincount(at // (size // groups), minlength=groups)
    if (counts != counts[0]).any():
        raise PlanError(
            f"layer {name!r} has {groups} groups: as many {side} of each must be kept, got {counts.tolist()}"
        )
    return list(at.split(int(counts[0])))  # type: ignore[no-untyped-call]


def _set(module: nn.Module, part: str, tensor: Tensor | None) -> None:
    if tensor is None:
        return
    old = getattr(module, part)
    new = tensor.detach().clone()
    setattr(module, part, nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new)
