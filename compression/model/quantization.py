"""int8 weights: Jacob et al. 2018, https://arxiv.org/abs/1712.05877.

A weight of two axes or more is stored row by row, a row for each output channel, as integers in [-127, 127] and one
scale for each row.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from fedpress.common.errors import DataError

SCALE = ".scale"  # behind the name of the weight that it belongs to
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


def _scales(weight: Tensor, most: int) -> Tensor:
    """Return a scale for each row, (rows, 1, ...), with which its largest magnitude becomes `most`."""
    return (weight.abs().amax(tuple(range(1, weight.dim())), keepdim=True) / most).clamp_min(_LEAST)
