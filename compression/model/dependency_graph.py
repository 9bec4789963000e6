"""Groups of coupled channels: DepGraph, Fang et al. 2023, https://arxiv.org/abs/2301.12900, with torch-pruning.

The library traces one call of the model through autograd and finds the outputs and inputs of layers that are one
channel: through sums, batch norms, depthwise convolutions, and the flattening between a convolution and a linear layer.
`find_fault` verifies its result.
"""

import copy
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedpress.common.errors import FedpressError, SettingError
from fedpress.compression.model.prune_channels import CONVOLUTIONS, PRUNABLE, KeptChannels, Prune, depthwise, size_of

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class GroupMember:
    """The outputs or inputs of a layer that belong to a group of channels."""

    layer: str
    side: str  # out or in
    size: int  # of that side
    at: Indices  # (n,) indices of the layer's outputs or inputs
    channel: Indices  # (n,) the channel that each of them is part of


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that are outputs of some layers and inputs of others: they can only be removed from all of them."""

    width: int
    blocks: int  # of equal size; grouped convolutions demand that as many channels of each are kept
    members: tuple[GroupMember, ...]

    @property
    def name(self) -> str:
        """The first layer whose outputs they are."""
        return self.members[0].layer


def channel_groups(model: nn.Module, x: Tensor) -> tuple[list[ChannelGroup], dict[str, str]]:
    """Return the channels of `model` that can be removed, and the reason for each layer whose channels cannot.

    Parameters
    ----------
    model : nn.Module
        The model; it is not changed.
    x : Tensor
        A few of its inputs, (n, ...).

    Raises
    ------
    SettingError
        If torch-pruning is not installed.
    """
    found, left = [], {}
    for group in _traced(model, x):
        reason = _obstacle(model, group)
        it = None if reason else _channels(model, group)
        reason = reason or (find_fault(model, x[:1], it) if it else "groups of its convolutions do not fit each other")
        if it is None or reason:
            left[group[0][0]] = reason
        else:
            found.append(it)
    return found, left


def find_fault(model: nn.Module, x: Tensor, it: ChannelGroup) -> str:
    """Return the reason why channels cannot be removed despite the graph; empty if they can.

    A model without some of them must give the same outputs as the model with their weights in the next layers set to
    zero: then the graph is complete. In float64, in which the two differ by rounding alone.
    """
    each = it.width // it.blocks
    if each == 1:
        return "it has one channel, or one in each of its groups"
    kept = np.flatnonzero(np.arange(it.width) % each != each // 2)
    whole, inputs = copy.deepcopy(model).double().eval(), x.double() if x.is_floating_point() else x
    step = prune([(it, kept)])
    try:
        less = copy.deepcopy(whole)
        step.apply(less, fill=True)
        with torch.no_grad():
            for member in it.members:
                if member.side == "in":
                    _zero_inputs(whole.get_submodule(member.layer), member.at[~np.isin(member.channel, kept)])
            outputs, expected = less(inputs), whole(inputs)
    except (RuntimeError, ValueError, FedpressError):
        return "the model does not run with fewer of its channels"
    if outputs.shape != expected.shape:
        return "its outputs are the model's outputs"
    return (
        "" if torch.allclose(outputs, expected, rtol=1e-6, atol=1e-9) else "channels mix on their way to the next layer"
    )


def prune(chosen: Sequence[tuple[ChannelGroup, Indices]]) -> Prune:
    """Return the step that keeps, of each of these groups, the channels with the given indices."""
    gone: dict[tuple[str, str], set[int]] = {}
    sizes: dict[tuple[str, str], int] = {}
    for it, kept in chosen:
        for member in it.members:
            key = member.layer, member.side
            gone.setdefault(key, set()).update(member.at[~np.isin(member.channel, kept)].tolist())
            sizes[key] = member.size
    layers: dict[str, dict[str, tuple[int, ...]]] = {}
    for (layer, side), removed in gone.items():
        if removed:
            layers.setdefault(layer, {})[side] = tuple(n for n in range(sizes[layer, side]) if n not in removed)
    return Prune({layer: KeptChannels(sides.get("out"), sides.get("in")) for layer, sides in layers.items()})


Group = list[tuple[str, str, list[int], list[int]]]  # layer, side, at, channel


def _traced(model: nn.Module, x: Tensor) -> Iterator[Group]:
    try:
        import torch_pruning
    except ImportError as error:
        raise SettingError('torch-pruning must be installed for pruning: pip install "fedpress[shrink]"') from error
    traced = copy.deepcopy(model).eval().requires_grad_(requires_grad=True)
    names = {module: name for name, module in traced.named_modules()}
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")  # about parameters outside layers: a group with any is not pruned
        try:
            graph = torch_pruning.DependencyGraph().build_dependency(traced, example_inputs=x, verbose=False)
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError) as error:
            raise SettingError(f"torch-pruning cannot follow this model: {error}") from error
        for group in graph.get_all_groups(root_module_types=[*CONVOLUTIONS, nn.Linear]):
            yield [
                (
                    names.get(item.dep.target.module, ""),
                    "out" if graph.is_out_channel_pruning_fn(item.dep.handler) else "in",
                    list(item.idxs),
                    list(item.root_idxs),
                )
                for item in group
                if isinstance(item.dep.target.module, nn.Parameter) or item.dep.target.module in names
            ]


def _obstacle(model: nn.Module, group: Group) -> str:
    """Return the reason why the layers of a group do not allow to remove channels; empty if they do."""
    for layer, _, _, _ in group:
        if not layer:
            return "a parameter that is in no layer is joined to it"
        module = model.get_submodule(layer)
        if not isinstance(module, PRUNABLE):
            return f"a {type(module).__name__} follows"
    return ""


def _channels(model: nn.Module, group: Group) -> ChannelGroup | None:
    """Return a group of channels; None if its blocks cannot keep the same whole number of channels."""
    members, width, blocks = [], len(group[0][2]), 1
    for layer, side, at, channel in group:
        module = model.get_submodule(layer)
        order = np.argsort(at)
        member = GroupMember(layer, side, size_of(module, side), np.array(at)[order], np.array(channel)[order])
        groups = getattr(module, "groups", 1)
        if groups > 1 and not depthwise(module):
            if len(at) != width or (member.channel != np.arange(width)).any():
                return None
            blocks = math.lcm(blocks, groups)
        members.append(member)
    return ChannelGroup(width, blocks, tuple(members)) if width % blocks == 0 else None


def _zero_inputs(module: nn.Module, inputs: Indices) -> None:
    """Set the weights for some inputs of a layer to zero."""
    weight, groups = module.get_parameter("weight"), int(getattr(module, "groups", 1))
    each, rows = weight.shape[1], weight.shape[0] // groups
    for number in inputs.tolist():
        group = number // each
        weight[group * rows : (group + 1) * rows, number % each] = 0
