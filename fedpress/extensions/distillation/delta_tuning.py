"""What nodes receive is a compressed model: the delta is aimed so that it does, on proxy data, what the exact one does.

The codec stands in the loop, as in quantisation-aware distillation, Polino et al. 2018,
https://arxiv.org/abs/1802.05668: the loss is that of the model which the delta really leads to, and its gradient moves
what is aimed at, straight through the quantiser, Bengio et al. 2013, https://arxiv.org/abs/1308.3432. Frames, and the
models that they lead to, stay what the codec makes of them.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fedpress.common.logs import LOGGER
from fedpress.compression import Update
from fedpress.extensions.distillation.acceptance import on_agreement
from fedpress.extensions.distillation.distillation import load
from fedpress.extensions.distillation.ensemble import scores_of
from fedpress.extensions.distillation.proxies import generator
from fedpress.server.downlink.downlink import Code

_log = logging.getLogger(LOGGER)
_BATCH = 256
_SHARE = 0.1  # of the codec's error, root mean square, that a step moves a weight by at first
_BACK = 0.1  # of the way that was gone, after an aim that takes too many bytes
_MEAN, _SQUARE = 0.9, 0.99  # decays of Adam's moments


@dataclass(frozen=True)
class DeltaTuning:
    """Moves what a delta is aimed at until the model that it leads to says what the exact model says."""

    make: Callable[[], nn.Module]
    proxy: Tensor  # inputs (n, ...)
    steps: int
    device: str = "cpu"

    def __call__(self, exact: Update, code: Code, rng: np.random.Generator) -> Update:
        """Return the best aim of those that take no more bytes than `exact` itself."""
        model = self.make().to(self.device)
        wanted = scores_of(load(model, exact), self.proxy, self.device)
        learnt = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        most, reached = code(exact)
        error = {name: float(np.sqrt(np.square(reached[name] - exact[name]).mean())) for name in learnt}
        aim, order = exact, generator(rng)
        moments = {name: (np.zeros_like(exact[name]), np.zeros_like(exact[name])) for name in learnt}
        first = lowest = self._loss(load(model, reached), wanted)
        best = exact
        for step in range(self.steps):
            batch = torch.randint(len(self.proxy), (_BATCH,), generator=order)
            gradients = self._gradients(load(model, reached), self.proxy[batch], wanted[batch])
            aim, left = dict(aim), 1 - step / self.steps
            for name in learnt:
                mean, square = moments[name]
                mean = _MEAN * mean + (1 - _MEAN) * gradients[name]
                square = _SQUARE * square + (1 - _SQUARE) * np.square(gradients[name])
                moments[name] = mean, square
                way = mean / (1 - _MEAN ** (step + 1)) / (np.sqrt(square / (1 - _SQUARE ** (step + 1))) + 1e-12)
                aim[name] = (aim[name] - _SHARE * error[name] * left * way).astype(exact[name].dtype)
            nbytes, reached = code(aim)
            loss = self._loss(load(model, reached), wanted)
            if nbytes <= most and loss < lowest:
                best, lowest = aim, loss
            elif nbytes > most:  # back to where fewer are needed
                aim = {
                    name: array + _BACK * (exact[name] - array) if name in learnt else array
                    for name, array in aim.items()
                }
        _log.info("tuned delta: loss to the exact model %.5f, was %.5f, at %d bytes or fewer", lowest, first, most)
        return best

    def _loss(self, model: nn.Module, wanted: Tensor) -> float:
        return on_agreement(model, self.proxy, wanted, self.device).loss

    def _gradients(self, model: nn.Module, x: Tensor, wanted: Tensor) -> dict[str, np.ndarray]:
        said = model(x.to(self.device)).log_softmax(-1)
        loss = -(wanted.to(self.device).softmax(-1) * said).sum(-1).mean()
        model.zero_grad(set_to_none=True)
        loss.backward()
        return {
            name: (torch.zeros_like(p) if p.grad is None else p.grad).cpu().numpy()
            for name, p in model.named_parameters()
            if p.requires_grad
        }
