"""FedPara, Hyeon-Woo et al. 2022, https://arxiv.org/abs/2108.06098: each wide matrix is a product of two of low rank.

The element-wise product of two matrices of rank r has rank up to r squared, from 2 r (rows + columns) parameters. It is
a model, not a codec: `model = "peers.fedpara:cnn"` trains it with any codecs, float32 in the paper.
"""

import math

import torch
from torch import Tensor, nn

from fedpress.simulations.workloads import models


class HadamardLinear(nn.Module):
    """A linear layer with the weight (X1 Y1') * (X2 Y2'), of the least rank with which it may have full rank."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        rank = math.ceil(math.sqrt(min(inputs, outputs)))
        # Products of two sums of `rank` terms have the variance of Kaiming's initialisation.
        scale = (2 / inputs) ** 0.125 / rank**0.25
        sizes = (outputs, inputs, outputs, inputs)
        self.factors = nn.ParameterList(nn.Parameter(scale * torch.randn(size, rank)) for size in sizes)
        self.bias = nn.Parameter(torch.zeros(outputs))

    @property
    def weight(self) -> Tensor:
        """The matrix, (outputs, inputs)."""
        x1, y1, x2, y2 = self.factors
        product: Tensor = (x1 @ y1.T) * (x2 @ y2.T)
        return product

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output."""
        return nn.functional.linear(x, self.weight, self.bias)


def factored(model: nn.Sequential) -> nn.Sequential:
    """Replace, in place, linear layers whose factors are fewer values than their weight; return the model."""
    for at, layer in enumerate(model):
        if isinstance(layer, nn.Linear):
            made = HadamardLinear(layer.in_features, layer.out_features)
            if sum(factor.numel() for factor in made.factors) < layer.weight.numel():
                model[at] = made
    return model


def cnn() -> nn.Sequential:
    """Return the workload's `cnn`, whose convolutions are smaller than their factors would be."""
    return factored(models.cnn(0.0))  # type: ignore[arg-type]


def mcmahan() -> nn.Sequential:
    """Return the workload's `mcmahan` with a factored linear layer."""
    return factored(models.mcmahan(0.0))  # type: ignore[arg-type]
