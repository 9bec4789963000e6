"""int8 weights and fake-quantised training: Jacob et al. 2018, https://arxiv.org/abs/1712.05877.

A row (output channel) of a weight of two axes or more is integers in [-127, 127] times the row's scale. Batch norm
multiplies whole rows, so an exporter that folds it into the weights quantises to the same integers as in training.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fedpress.common.errors import DataError

SCALE = ".scale"  # behind the name of the weight that it belongs to
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)  # that int8 runtimes have
_LEAST = 1e-12  # a scale of a row that is all zeros


def pack(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict with its float weights as int8, each with its scales (rows,); the others unchanged."""
    packed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.dim() < 2 or not tensor.is_floating_point():
            packed[name] = tensor
            continue
        scales = _scales(tensor, 127)
        packed[name] = (tensor / scales).round().to(torch.int8).contiguous()
        packed[name + SCALE] = scales.flatten()
    return packed


def unpack(packed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the dequantised state dict: the inverse of `pack`; raise DataError if a scale is missing."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in packed.items():
        if name.endswith(SCALE) and name.removesuffix(SCALE) in packed:
            continue
        if tensor.dtype == torch.int8 and tensor.dim() >= 2:
            scales = packed.get(name + SCALE)
            if scales is None or scales.shape != tensor.shape[:1]:
                raise DataError(f"{name} is int8 and has no scale for each of its {len(tensor)} rows")
            tensors[name] = tensor * scales.reshape(-1, *[1] * (tensor.dim() - 1))
        else:
            tensors[name] = tensor
    return tensors


@contextmanager
def fake_quantised(model: nn.Module, bits: int) -> Iterator[None]:
    """Run linear and convolutional layers of `model` with weights and inputs of `bits` bits; 0 for no change.

    Gradients ignore the rounding (straight-through estimator), and weights stay float32. The range of an input is that
    of its batch, so a model has no state besides its weights.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, LAYERS)] if bits else []
    for layer in layers:
        layer.forward = _Rounded(layer, bits)  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


class _Rounded:
    """The forward pass of a layer whose weight and input are rounded."""

    def __init__(self, layer: nn.Module, bits: int) -> None:
        self._layer, self._bits = layer, bits

    def __call__(self, x: Tensor) -> Tensor:
        layer: Any = self._layer
        x, weight = round_input(x, self._bits), round_weight(layer.weight, self._bits)
        if isinstance(self._layer, nn.Linear):
            return nn.functional.linear(x, weight, self._layer.bias)
        y: Tensor = layer._conv_forward(x, weight, layer.bias)
        return y


def round_weight(weight: Tensor, bits: int) -> Tensor:
    """Return `weight` on a symmetric grid of `bits` bits, one a row."""
    most: int = 2 ** (bits - 1) - 1
    with torch.no_grad():
        scales = _scales(weight, most)
        change = (weight / scales).round_() * scales - weight
    return weight + change


def round_input(x: Tensor, bits: int) -> Tensor:
    """Return `x` on a grid of `bits` bits from its least value, or zero, to its greatest; zero is on the grid."""
    steps = 2**bits - 1
    change: Tensor
    with torch.no_grad():
        low, high = x.amin().clamp(max=0), x.amax().clamp(min=0)
        scale = ((high - low) / steps).clamp_min(_LEAST)
        zero = (-low / scale).round()
        change = ((x / scale + zero).round_().clamp_(0, steps) - zero) * scale - x
    return x + change


def _scales(weight: Tensor, most: int) -> Tensor:
    """Return a scale for each row, (rows, 1, ...), with which its largest magnitude becomes `most`."""
    return (weight.abs().amax(tuple(range(1, weight.dim())), keepdim=True) / most).clamp_min(_LEAST)
