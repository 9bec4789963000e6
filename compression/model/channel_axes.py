"""The channels that the axes of a model's tensors belong to, from its graph.

It works for models that torch.fx can trace and that consist of the layers below.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum

from torch import fx, nn

from fedpress.common.errors import SettingError

_CHANNELWISE = ("ReLU", "ReLU6", "LeakyReLU", "ELU", "GELU", "SiLU", "Tanh", "Sigmoid", "Hardswish", "Identity")
_POOLS = ("MaxPool", "AvgPool", "AdaptiveAvgPool", "AdaptiveMaxPool", "Dropout", "Flatten")
_FUNCTIONS = (
    *("add", "iadd", "relu", "relu_", "gelu", "silu", "tanh", "sigmoid", "dropout", "flatten"),
    *("max_pool1d", "max_pool2d", "avg_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d"),
)


@dataclass(frozen=True)
class ChannelAxes:
    """The spaces of channels of a model: the outputs of a layer, and of all layers that they are added to.

    Parameters
    ----------
    spaces : tuple of int
        Number of channels of each space.
    axes : tuple
        For each tensor, in the model's order, and each of its leading axes the index of the space, None for the
        model's input or output, and the number of elements per channel, more than one after a flattening.
    """

    spaces: tuple[int, ...]
    axes: Mapping[str, tuple[tuple[int | None, int], ...]]


def channel_axes_of(model: nn.Module) -> ChannelAxes:
    """Return the channels of `model`; raise SettingError if it has a layer that is not supported."""
    try:
        graph = fx.Tracer().trace(model)
    except Exception as error:  # raised by a model's code
        raise _cannot(model, f"its graph cannot be traced: {error}".splitlines()[0]) from error
    axes: dict[str, tuple[_Axis | None, ...]] = {}
    flows: dict[fx.Node, _Flow | None] = {}  # the output of each node; None for the model's input
    for node in graph.nodes:
        inputs = [flows[n] for n in node.all_input_nodes]
        flows[node] = _follow(model, node, inputs, axes)
    missing = [name for name in model.state_dict() if name not in axes]
    if missing:
        raise _cannot(model, f"{missing[0]} belongs to no supported layer")
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
    return ChannelAxes(tuple(space.size for space in numbers), resolved)


class _Space:
    """Channels that several axes share: the outputs of one layer, of all layers that they are added to, and so on."""

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
    block: int  # elements of the axis per channel: more than one after a flattening


class _Placement(Enum):
    """The position of the channels in a tensor."""

    SECOND = "on the second axis"  # (n, channels, ...), as convolutions have them
    LAST = "on the last axis"  # (n, ..., channels), as linear layers have them
    FLAT = "one after another"  # (n, channels * block), after a flattening of SECOND


@dataclass(frozen=True)
class _Flow:
    space: _Space
    placement: _Placement


def _follow(
    model: nn.Module, node: fx.Node, inputs: list[_Flow | None], axes: dict[str, tuple[_Axis | None, ...]]
) -> _Flow | None:
    """Return the output of `node`, given its inputs; add the axes of its tensors to `axes`."""
    match node.op:
        case "placeholder":
            return None
        case "output":
            if len(inputs) != 1:
                raise _cannot(model, f"it has {len(inputs)} outputs")
            if inputs[0] is not None:
                inputs[0].space.root().fixed = True
            return None
        case "call_module":
            path = str(node.target)
            return _layer(model, path, model.get_submodule(path), inputs, axes)
        case "call_function" | "call_method":
            name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "?")
            if name in _FUNCTIONS and inputs:
                if name == "flatten":
                    return _flat(inputs[0], node.args[1] if len(node.args) > 1 else node.kwargs.get("start_dim", 0))
                return _joined(model, node, inputs)
    raise _cannot(model, f"{node.op} {node.target} is not supported")


def _flat(source: _Flow | None, start: object) -> _Flow | None:
    """Return the output of a flattening from the axis `start` on."""
    if source is None or source.placement is not _Placement.SECOND or start != 1:
        return source
    return replace(source, placement=_Placement.FLAT)


def _joined(model: nn.Module, node: fx.Node, inputs: list[_Flow | None]) -> _Flow | None:
    """Return the output of a sum."""
    known = [flow for flow in inputs if flow is not None]
    if not known:
        return None
    first, *others = known
    for other in others:
        if other.placement is not first.placement:
            raise _cannot(model, f"{node} adds channels {first.placement.value} to channels {other.placement.value}")
        first.space.unite(other.space)
    if len(known) < len(inputs):  # the model's input is one of the terms
        first.space.root().fixed = True
    return first


def _layer(
    model: nn.Module,
    path: str,
    layer: nn.Module,
    inputs: list[_Flow | None],
    axes: dict[str, tuple[_Axis | None, ...]],
) -> _Flow | None:
    def note(out: _Axis | None, into: _Axis | None) -> None:
        for name, tensor in layer.state_dict().items():
            full = f"{path}.{name}"
            if full in axes:
                raise _cannot(model, f"{path} is used twice")
            axes[full] = (out, into)[: min(2 if name == "weight" else 1, tensor.dim())]

    def reads(size: int, *placements: _Placement) -> _Axis | None:
        if source is None:
            return None
        there = source.space.root().size
        block, odd = divmod(size, there)
        flat = source.placement is _Placement.FLAT
        if source.placement not in placements or odd or not block or (block > 1 and not flat):
            raise _cannot(model, f"{path} reads {size} values, of {there} channels {source.placement.value}")
        return _Axis(source.space, block)

    source = inputs[0] if len(inputs) == 1 else None
    kind = type(layer).__name__
    match layer:
        case nn.Linear():
            made = _Space(layer.out_features)
            note(_Axis(made, 1), reads(layer.in_features, _Placement.LAST, _Placement.FLAT))
            return _Flow(made, _Placement.LAST)
        case nn.Conv1d() | nn.Conv2d() | nn.Conv3d() if layer.groups == 1:
            made = _Space(layer.out_channels)
            note(_Axis(made, 1), reads(layer.in_channels, _Placement.SECOND))
            return _Flow(made, _Placement.SECOND)
        case nn.Conv1d() | nn.Conv2d() | nn.Conv3d() if layer.groups == layer.in_channels == layer.out_channels:
            note(reads(layer.in_channels, _Placement.SECOND), None)
            return source
        case nn.BatchNorm1d() | nn.BatchNorm2d() | nn.BatchNorm3d():
            note(reads(layer.num_features, *_Placement), None)
            return source
    if (kind in _CHANNELWISE or kind.startswith(_POOLS)) and not layer.state_dict():
        return _flat(source, layer.start_dim) if isinstance(layer, nn.Flatten) else source
    raise _cannot(model, f"{path} is a {kind}")


def _cannot(model: nn.Module, why: str) -> SettingError:
    return SettingError(f"{type(model).__name__} cannot be narrowed: {why}")
