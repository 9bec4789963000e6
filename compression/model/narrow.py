"""Sub-models by width, as in HeteroFL, Diao et al. 2021, https://arxiv.org/abs/2010.01264.

A sub-model has a share of the channels between a model's layers, and all inputs and outputs: the first channels, or
those of the largest norm.
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
    orders : sequence of ndarray of int64
        For each space its channels in order of selection; the first ones are selected first if empty.
    """
    orders = orders or [np.arange(size) for size in channels.spaces]
    chosen = [order[: channel_count(len(order), width)] for order in orders]
    indices: dict[str, Index] = {}
    for name, axes in channels.axes.items() if width < 1 else ():
        index = tuple(None if space is None else _blocks(chosen[space], block) for space, block in axes)
        while index and index[-1] is None:
            index = index[:-1]
        if index:
            indices[name] = index
    return Slice({name: name for name in channels.axes}, indices)


def by_importance(channels: ChannelAxes, weights: Mapping[str, np.ndarray]) -> list[NDArray[np.int64]]:
    """Return each space's channels by the norm of the weights that compute them, the largest first."""
    squares = [np.zeros(size) for size in channels.spaces]
    for name, axes in channels.axes.items():
        space, block = axes[0] if axes else (None, 1)
        if space is not None and weights[name].ndim > 1:
            rows = np.square(weights[name].reshape(channels.spaces[space] * block, -1), dtype=np.float64).sum(1)
            squares[space] += rows.reshape(-1, block).sum(1)
    return [np.argsort(-square, kind="stable") for square in squares]


def channel_count(size: int, width: float) -> int:
    """Return the number of channels, of `size`, of a sub-model of this width."""
    return math.ceil(size * width - 1e-9)


def narrow(model: nn.Module, width: float, scale: float = 0.0) -> nn.Module:
    """Return a copy of `model` with this share of its channels, the first ones.

    The input of a layer with fewer inputs than in `model` is multiplied by (1 / share) ** `scale`, to preserve the
    magnitude of its sums: 0.5 does so for independent inputs, 1 for equal ones.
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
    """Set the sizes of a layer to those of its weights."""
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
    """Return the elements of these channels on an axis with `block` elements per channel."""
    return channels if block == 1 else (channels[:, None] * block + np.arange(block)).reshape(-1)
