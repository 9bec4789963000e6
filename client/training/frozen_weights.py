"""Weights that are dead, in training: they move nothing and are not moved."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class PrunedWeights:
    """The weights of parameters of two axes or more that are minus zero, as the server's mask has them."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self._dead = [(parameter, mask) for parameter in parameters if (mask := dead(parameter)).any()]

    def still(self) -> None:
        """Take dead weights' gradients away: neither an optimiser's moments nor a norm that is clipped sees them."""
        for parameter, mask in self._dead:
            if parameter.grad is not None:
                parameter.grad.masked_fill_(mask, 0.0)

    def bury(self) -> None:
        """Make dead weights minus zero again."""
        with torch.no_grad():
            for parameter, mask in self._dead:
                parameter.masked_fill_(mask, -0.0)


def dead(parameter: Tensor) -> Tensor:
    """Return which weights of a parameter are dead."""
    parameter = parameter.detach()
    return (parameter == 0) & parameter.signbit() & (parameter.dim() > 1)
