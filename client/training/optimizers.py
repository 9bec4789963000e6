"""The optimizers of local training; SGD with Nesterov's momentum: Sutskever et al. 2013, https://proceedings.mlr.press/v28/sutskever13."""

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd

from fedpress.settings.training import TrainingSettings


class Optimizer(Protocol):
    """The methods of an optimizer that local training calls."""

    def step(self) -> None: ...
    def zero_grad(self) -> None: ...


class SGD:
    """`torch.optim.SGD` to the bit, without its class, which imports PyTorch's compiler: 70 MB and two seconds."""

    def __init__(
        self, parameters: list[nn.Parameter], lr: float, *, momentum: float, nesterov: bool, weight_decay: float
    ) -> None:
        self._parameters = parameters
        self._lr, self._momentum, self._nesterov, self._weight_decay = lr, momentum, nesterov, weight_decay
        self._buffers: dict[nn.Parameter, Tensor | None] = {}

    def zero_grad(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        parameters = [parameter for parameter in self._parameters if parameter.grad is not None]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        buffers = [self._buffers.get(parameter) for parameter in parameters]
        sgd(
            list[Tensor](parameters),
            gradients,
            buffers,
            has_sparse_grad=any(gradient.is_sparse for gradient in gradients),
            weight_decay=self._weight_decay,
            momentum=self._momentum,
            lr=self._lr,
            dampening=0.0,
            nesterov=self._nesterov,
            maximize=False,
        )
        self._buffers.update(zip(parameters, buffers, strict=True))


def make_optimizer(parameters: list[nn.Parameter], training: TrainingSettings, lr: float) -> Optimizer:
    """Return a new optimizer: nodes keep no moments between rounds."""
    decay = training.weight_decay
    match training.optimizer:
        case "adagrad":
            return torch.optim.Adagrad(parameters, lr, weight_decay=decay)
        case "rmsprop":
            return torch.optim.RMSprop(parameters, lr, weight_decay=decay)
        case "adam":
            return torch.optim.Adam(parameters, lr, weight_decay=decay)
        case "adamw":
            return torch.optim.AdamW(parameters, lr, weight_decay=decay)
        case "nadam":
            return torch.optim.NAdam(parameters, lr, weight_decay=decay)
        case _:
            return SGD(parameters, lr, momentum=training.momentum, nesterov=training.nesterov, weight_decay=decay)
