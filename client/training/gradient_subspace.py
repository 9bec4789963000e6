"""Training within the subspaces that updates are sent in: Li et al. 2018, https://arxiv.org/abs/1804.08838."""

import math

import numpy as np
import torch
from torch import Tensor, nn

from fedpress.common.errors import SettingError
from fedpress.compression.kernels.shared_subspace import subspace


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
        self._parts: list[tuple[nn.Parameter, Tensor, Tensor, float, Tensor]] = []
        for name, parameter in parameters.items():
            found = subspace(name, parameter.numel(), share) if parameter.requires_grad else None
            if found:
                factor = np.where(found.negative, -1, 1) * found.scale[found.bucket]
                self._parts.append(
                    (
                        parameter,
                        torch.from_numpy(found.bucket.astype(np.int64)).to(parameter.device),
                        torch.from_numpy(factor).to(parameter),
                        math.sqrt(parameter.numel() / found.dimensions),
                        parameter.new_zeros(found.dimensions),
                    )
                )

    @torch.no_grad()
    def project_gradients(self) -> None:
        """Replace each gradient by its projection, times the root of values over dimensions."""
        for parameter, bucket, factor, gain, coordinates in self._parts:
            if parameter.grad is not None:
                coordinates.zero_().index_add_(0, bucket, parameter.grad.reshape(-1) * factor)
                parameter.grad.copy_((coordinates.mul_(gain)[bucket] * factor).view_as(parameter.grad))
