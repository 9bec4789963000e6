"""Training within the subspaces that updates are sent in: Li et al. 2018, https://arxiv.org/abs/1804.08838."""

import math

import torch
from torch import Tensor, nn

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
        self._parts: list[tuple[nn.Parameter, Tensor, Tensor, Tensor]] = []
        for name, parameter in model.named_parameters():
            found = subspace(name, parameter.numel(), share) if parameter.requires_grad else None
            if found:
                factor = torch.from_numpy(found.factor).to(parameter.device)
                gain = factor * math.sqrt(parameter.numel() / found.dimensions)
                coordinates = torch.zeros(found.dimensions, device=parameter.device)
                bucket = torch.from_numpy(found.bucket).to(parameter.device)
                self._parts.append((parameter, bucket, torch.stack([factor, gain]), coordinates))

    @torch.no_grad()
    def project_gradients(self) -> None:
        """Replace each gradient by its projection, times the root of values over dimensions."""
        for parameter, bucket, (factor, gain), coordinates in self._parts:
            if parameter.grad is not None:
                coordinates.zero_().index_add_(0, bucket, parameter.grad.reshape(-1) * factor)
                parameter.grad.copy_((coordinates[bucket] * gain).view_as(parameter.grad))
