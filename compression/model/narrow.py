"""Sub-models by width: HeteroFL's nested slices, Diao et al. 2021, https://arxiv.org/abs/2010.01264, and their kin.

A sub-model takes a share of the channels between a model's layers; its input and output stay. Nested: the
first channels. By importance: the channels of the largest norm.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedpress.compression.model.channel_axes import ChannelAxes, channel_axes_of
from fedpress.compression.submodels import Index, Slice


def part_of(channels: ChannelAxes, width: float, orders: Sequence[NDArray[np.int64]] = ()) -> Slice:
    """Return the part of a model of this `width`, in (0, 1].

    Parameters
    ----------
    orders : for each space all its channels, those to be taken first; their own order if empty
    """
    orders = orders or [np.arange(size) for size in channels.spaces]
    chosen = [order[: kept(len(order), width)] for order in orders]
    indices: dict[str, Index] = {}
    for name, axes in channels.axes.items() if width < 1 else ():
        index = tuple(None if space is None else _blocks(chosen[space], block) for space, block in axes)
        while index and index[-1] is None:
            index = index[:-1]
        if index:
            indices[name] = index
    return Slice({name: name for name in channels.axes}, indices)


def by_importance(channels: ChannelAxes, weights: Mapping[str, np.ndarray]) -> list[NDArray[np.int64]]:
    """Return each space's channels by the norm of what makes them, the largest first."""
    squares = [np.zeros(size) for size in channels.spaces]
    for name, axes in channels.axes.items():
        space, block = axes[0] if axes else (None, 1)
        if space is not None and weights[name].ndim > 1:
            rows = np.square(weights[name].reshape(channels.spaces[space] * block, -1), dtype=np.float64).sum(1)
            squares[space] += rows.reshape(-1, block).sum(1)
    return [np.argsort(-square, kind="stable") for square in squares]


def kept(size: int, width: float) -> int:
    """Return how many of `size` channels a sub-model of this width has."""
    return math.ceil(size * width - 1e-9)


def narrow(model: nn.Module, width: float, scale: float = 0.0) -> nn.Module:
    """Return a model like `model` with this share of its channels, the first of them, and their weights.

    Where a layer has fewer inputs than in `model`, what it is given is multiplied by (1 / share) ** `scale`, so that
    its sums are of a size that they have there: with 0.5 those of inputs that are independent, with 1 of equal ones.
    """
    if width >= 1:
        return model
    part = part_of(channel_axes_of(model), width)
    weights = part.take({name: tensor.detach().cpu().numpy() for name, tensor in model.state_dict().items()})
    small = copy.deepcopy(model)
    for path, module in small.named_modules():
        for name, known in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            full = f"{path}.{name}"
            if full not in part.indices:
                continue
            tensor = torch.from_numpy(np.ascontiguousarray(weights[full]))
            setattr(module, name, nn.Parameter(tensor) if isinstance(known, nn.Parameter) else tensor)
            if name == "weight" and known.dim() > 1 and tensor.shape[1] < known.shape[1] and scale:
                module.register_forward_pre_hook(_Scaled((known.shape[1] / tensor.shape[1]) ** scale))
        _resize(module)
    return small


@dataclass(frozen=True)
class _Scaled:
    """Multiplies a layer's input."""

    factor: float

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0] * self.factor, *inputs[1:])


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


def _blocks(channels: NDArray[np.int64], block: int) -> NDArray[np.int64]:
    """Return the elements of these channels on an axis that has `block` of them for each."""
    return channels if block == 1 else (channels[:, None] * block + np.arange(block)).reshape(-1)
