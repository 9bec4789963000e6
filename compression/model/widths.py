"""Sub-models by width: HeteroFL's nested slices, Diao et al. 2021, https://arxiv.org/abs/2010.01264, and their kin.

A sub-model takes a share of the channels between a model's layers; its input and output stay. Rolling: FedRolex, Alam
et al. 2022, https://arxiv.org/abs/2212.01548: the share begins one channel further on every round. By importance: the
channels of the largest norm.

Which axis of which tensor counts which channels is read off the model's graph, so a model of anybody's own works if
torch.fx can trace it and it is made of the layers below.
"""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx, nn

from fedpress.compression.errors import SettingError
from fedpress.compression.slices import Index, Slice

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_CHANNELWISE = ("ReLU", "ReLU6", "LeakyReLU", "ELU", "GELU", "SiLU", "Tanh", "Sigmoid", "Hardswish", "Identity")
_POOLS = ("MaxPool", "AvgPool", "AdaptiveAvgPool", "AdaptiveMaxPool", "Dropout", "Flatten")
_FUNCTIONS = ("add", "iadd", "relu", "relu_", "flatten", "dropout", "max_pool1d", "max_pool2d", "avg_pool2d", "gelu")
_FUNCTIONS += ("adaptive_avg_pool1d", "adaptive_avg_pool2d", "silu", "tanh", "sigmoid")


class _Space:
    """Channels that several axes count: those of one layer's outputs, of all that are added to them, and so on."""

    def __init__(self, size: int, *, fixed: bool = False) -> None:
        self.size = size
        self.fixed = fixed
        self._same: _Space | None = None

    def root(self) -> "_Space":
        return self if self._same is None else self._same.root()

    def unite(self, other: "_Space") -> "_Space":
        one, two = self.root(), other.root()
        if one is not two:
            two._same = one
            one.fixed |= two.fixed
        return one


@dataclass(frozen=True, eq=False)
class _Axis:
    space: _Space
    block: int  # elements of the axis for each channel: more than one behind a flattening


@dataclass(frozen=True)
class Structure:
    """A model's channels: `spaces` says how many there are of each kind, `axes` which axis of which tensor has them."""

    spaces: tuple[int, ...]
    axes: Mapping[str, tuple[tuple[int | None, int], ...]]  # tensor -> for leading axes (number of a space, block)

    def orders(self, weights: Mapping[str, np.ndarray]) -> list[NDArray[np.int64]]:
        """Return each space's channels by the norm of what makes them, the largest first."""
        squares = [np.zeros(size) for size in self.spaces]
        for name, axes in self.axes.items():
            if axes and axes[0][0] is not None and weights[name].ndim > 1:
                space, block = axes[0]
                rows = np.square(weights[name].reshape(self.spaces[space] * block, -1), dtype=np.float64).sum(1)
                squares[space] += rows.reshape(-1, block).sum(1)
        return [np.argsort(-square, kind="stable") for square in squares]

    def slice(self, width: float, *, start: int = 0, orders: list[NDArray[np.int64]] | None = None) -> Slice:
        """Return the part of the model of this `width`, in (0, 1].

        Parameters
        ----------
        start : the first channel that it takes; behind the last one it goes on with the first
        orders : for each space all its channels in another order than their own
        """
        chosen = []
        for number, size in enumerate(self.spaces):
            places = (start + np.arange(kept(size, width))) % size
            chosen.append(orders[number][places] if orders else places)
        indices: dict[str, Index] = {}
        for name, axes in self.axes.items() if width < 1 else ():
            index = tuple(None if space is None else _blocks(chosen[space], block) for space, block in axes)
            while index and index[-1] is None:
                index = index[:-1]
            if index:
                indices[name] = index
        return Slice({name: name for name in self.axes}, indices)


def kept(size: int, width: float) -> int:
    """Return how many of `size` channels a sub-model of this width has."""
    return math.ceil(size * width - 1e-9)


def structure(model: nn.Module) -> Structure:
    """Return the channels of `model`; raise SettingError if it has a layer whose channels are not known."""
    try:
        graph = fx.Tracer().trace(model)
    except Exception as error:  # whatever a model's own code raises when it is traced
        raise _cannot(model, f"its graph cannot be traced: {error}".splitlines()[0]) from error
    axes: dict[str, tuple[_Axis | None, ...]] = {}
    flows: dict[fx.Node, _Space | None] = {}  # the channels of what flows out of each node; None: the model's input
    for node in graph.nodes:
        inputs = [flows[n] for n in node.all_input_nodes]
        flows[node] = _follow(model, node, inputs, axes)
    missing = [name for name in model.state_dict() if name not in axes]
    if missing:
        raise _cannot(model, f"{missing[0]} belongs to no layer whose channels are known")
    numbers: dict[_Space, int] = {}
    for spread in axes.values():
        for axis in spread:
            if axis is not None and not axis.space.root().fixed:
                numbers.setdefault(axis.space.root(), len(numbers))
    resolved = {
        name: tuple((None, 1) if a is None else (numbers.get(a.space.root()), a.block) for a in axes[name])
        for name in model.state_dict()
    }
    if not numbers:
        raise _cannot(model, "it has no layers between its input and its output")
    return Structure(tuple(space.size for space in numbers), resolved)


def narrow(model: nn.Module, width: float) -> nn.Module:
    """Return a model like `model` with this share of its channels, the first of them, and their weights."""
    if width >= 1:
        return model
    part = structure(model).slice(width)
    weights = part.take({name: tensor.detach().cpu().numpy() for name, tensor in model.state_dict().items()})
    small = copy.deepcopy(model)
    for path, module in small.named_modules():
        for name in [*module._parameters, *module._buffers]:
            full = f"{path}.{name}".lstrip(".")
            if full in part.indices:
                tensor = torch.from_numpy(np.ascontiguousarray(weights[full]))
                kind = nn.Parameter(tensor) if name in module._parameters else tensor
                setattr(module, name, kind)
        _resize(module)
    return small


def _resize(module: nn.Module) -> None:
    """Let a layer say of itself what its weights are."""
    match module:
        case nn.Linear():
            module.out_features, module.in_features = module.weight.shape
        case nn.Conv1d() | nn.Conv2d() | nn.Conv3d():
            if module.groups > 1:
                module.groups = len(module.weight)
            module.out_channels, module.in_channels = len(module.weight), module.weight.shape[1] * module.groups
        case nn.BatchNorm1d() | nn.BatchNorm2d() | nn.BatchNorm3d():
            known = module.weight if module.weight is not None else module.running_mean
            module.num_features = module.num_features if known is None else len(known)


def _follow(
    model: nn.Module, node: fx.Node, inputs: list[_Space | None], axes: dict[str, tuple[_Axis | None, ...]]
) -> _Space | None:
    """Return the channels that flow out of `node`, given those that flow in; note the axes of its tensors."""
    match node.op:
        case "placeholder":
            return None
        case "output":
            if len(inputs) != 1:
                raise _cannot(model, f"it has {len(inputs)} outputs")
            if inputs[0] is not None:
                inputs[0].root().fixed = True
            return None
        case "call_module":
            path = str(node.target)
            return _layer(model, path, model.get_submodule(path), inputs, axes)
        case "call_function" | "call_method":
            name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "?")
            if name in _FUNCTIONS and inputs:
                return _joined(inputs)
    raise _cannot(model, f"{node.op} {node.target} is none of the layers whose channels are known")


def _joined(inputs: list[_Space | None]) -> _Space | None:
    """Return the channels of a sum."""
    known = [space for space in inputs if space is not None]
    if not known:
        return None
    for other in known[1:]:
        known[0].unite(other)
    if len(known) < len(inputs):  # the model's own input is among what is added
        known[0].root().fixed = True
    return known[0].root()


def _layer(
    model: nn.Module,
    path: str,
    layer: nn.Module,
    inputs: list[_Space | None],
    axes: dict[str, tuple[_Axis | None, ...]],
) -> _Space | None:
    def note(out: _Axis | None, into: _Axis | None) -> None:
        for name, tensor in layer.state_dict().items():
            full = f"{path}.{name}"
            if full in axes:
                raise _cannot(model, f"{path} is used twice")
            axes[full] = (out, into)[: min(2 if name == "weight" else 1, tensor.dim())]

    source = inputs[0] if len(inputs) == 1 else None
    kind = type(layer).__name__
    match layer:
        case nn.Linear():
            made = _Space(layer.out_features)
            note(_Axis(made, 1), _read(source, layer.in_features))
            return made
        case nn.Conv1d() | nn.Conv2d() | nn.Conv3d() if layer.groups == 1:
            made = _Space(layer.out_channels)
            note(_Axis(made, 1), _read(source, layer.in_channels))
            return made
        case nn.Conv1d() | nn.Conv2d() | nn.Conv3d() if layer.groups == layer.in_channels == layer.out_channels:
            note(_read(source, layer.in_channels), None)
            return source
        case nn.BatchNorm1d() | nn.BatchNorm2d() | nn.BatchNorm3d():
            note(_read(source, layer.num_features), None)
            return source
    if (kind in _CHANNELWISE or kind.startswith(_POOLS)) and not layer.state_dict():
        return source
    raise _cannot(model, f"{path} is a {kind}")


def _read(source: _Space | None, size: int) -> _Axis | None:
    return None if source is None else _Axis(source, size // source.root().size)


def _blocks(channels: NDArray[np.int64], block: int) -> NDArray[np.int64]:
    """Return the elements of these channels on an axis that has `block` of them for each."""
    return channels if block == 1 else (channels[:, None] * block + np.arange(block)).reshape(-1)


def _cannot(model: nn.Module, why: str) -> SettingError:
    return SettingError(f"{type(model).__name__} cannot be narrowed: {why}")


