"""Pruned weights in training: they have no gradient and remain zero."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class PrunedWeights:
    """The pruned weights of a model: those that are minus zero, in parameters of two axes or more."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self._pruned = [(parameter, mask) for parameter in parameters if (mask := pruned(parameter)).any()]

    def clear_gradients(self) -> None:
        """Set the gradients of pruned weights to zero, so that neither moments nor clipped norms include them."""
        for parameter, mask in self._pruned:
            if parameter.grad is not None:
                parameter.grad.masked_fill_(mask, 0.0)

    def restore(self) -> None:
        """Set pruned weights to minus zero again."""
        with torch.no_grad():
            for parameter, mask in self._pruned:
                parameter.masked_fill_(mask, -0.0)


def pruned(parameter: Tensor) -> Tensor:
    """Return a mask of the pruned weights of a parameter."""
    parameter = parameter.detach()
    return (parameter == 0) & parameter.signbit() & (parameter.dim() > 1)
