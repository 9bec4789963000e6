"""Training within the subspaces that updates are sent in: Li et al. 2018, https://arxiv.org/abs/1804.08838."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fedpress.common.errors import SettingError
from fedpress.compression.kernels.shared_subspace import subspace


@dataclass(frozen=True)
class _ParameterSubspace:
    """The subspace of one parameter of n values."""

    parameter: nn.Parameter
    bucket: Tensor  # int64 (n,): each value's coordinate
    factor: Tensor  # (n,): each value's share of its coordinate, with its sign
    gain: float  # by which projected gradients are multiplied
    coordinates: Tensor  # (dimensions,): reused by all steps


class GradientSubspace:
    """Moves gradients into the subspaces of their tensors, without changing their expected norms.

    Parameters
    ----------
    model : torch.nn.Module
        The model; the name of a parameter chooses its subspace.
    share : float
        Dimensions of a subspace over the parameter's values.
    """

    def __init__(self, model: nn.Module, share: float) -> None:
        parameters = dict(model.named_parameters())
        if len(parameters) < len(dict(model.named_parameters(remove_duplicate=False))):
            raise SettingError(f"subspace must be 0 for a model with tied weights, got {share}")
        self._parts: list[_ParameterSubspace] = []
        for name, parameter in parameters.items():
            found = subspace(name, parameter.numel(), share) if parameter.requires_grad else None
            if found:
                factor = np.where(found.negative, -1, 1) * found.scale[found.bucket]
                self._parts.append(
                    _ParameterSubspace(
                        parameter,
                        bucket=torch.from_numpy(found.bucket.astype(np.int64)).to(parameter.device),
                        factor=torch.from_numpy(factor).to(parameter),
                        gain=math.sqrt(parameter.numel() / found.dimensions),
                        coordinates=parameter.new_zeros(found.dimensions),
                    )
                )

    @torch.no_grad()
    def project_gradients(self) -> None:
        """Replace each gradient by its projection, times the root of values over dimensions."""
        for part in self._parts:
            gradient = part.parameter.grad
            if gradient is not None:
                coordinates = part.coordinates.zero_().index_add_(0, part.bucket, gradient.reshape(-1) * part.factor)
                gradient.copy_((coordinates.mul_(part.gain)[part.bucket] * part.factor).view_as(gradient))
