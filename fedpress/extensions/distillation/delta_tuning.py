"""Tune the delta that nodes receive, so that the decoded model predicts on proxy data as the exact model does.

The codec is part of the loop, as in quantisation-aware distillation, Polino et al. 2018,
https://arxiv.org/abs/1802.05668: the loss is that of the decoded model, and its gradient moves the target of the delta
by a straight-through estimator, Bengio et al. 2013, https://arxiv.org/abs/1308.3432. The codec itself is unchanged.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fedpress.common.logs import LOGGER
from fedpress.compression import Update
from fedpress.compression.model.evaluation import scores_of
from fedpress.extensions.distillation.acceptance import on_agreement
from fedpress.extensions.distillation.distillation import load
from fedpress.extensions.distillation.proxies import generator
from fedpress.server.downlink.deltas import Code

_log = logging.getLogger(LOGGER)
_BATCH = 256
_STEP = 0.1  # size of the first step, as a share of the codec's root mean square error
_UNDO = 0.1  # share of the distance to the exact model that is undone after a target that takes too many bytes
_MEAN, _SQUARE = 0.9, 0.99  # decays of Adam's moments


@dataclass(frozen=True)
class DeltaTuning:
    """Tunes the target of a delta until the decoded model predicts as the exact model does."""

    make: Callable[[], nn.Module]
    proxy: Tensor  # inputs (n, ...)
    steps: int
    device: str = "cpu"

    def __call__(self, exact: Update, code: Code, rng: np.random.Generator) -> Update:
        """Return the best target among those whose deltas take no more bytes than that to `exact`."""
        model = self.make().to(self.device)
        wanted = scores_of(load(model, exact), self.proxy, self.device)
        trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        limit, decoded = code(exact)
        error = {name: float(np.sqrt(np.square(decoded[name] - exact[name]).mean())) for name in trained}
        target, order = exact, generator(rng)
        moments = {name: (np.zeros_like(exact[name]), np.zeros_like(exact[name])) for name in trained}
        first = lowest = self._loss(load(model, decoded), wanted)
        best = exact
        for step in range(self.steps):
            batch = torch.randint(len(self.proxy), (_BATCH,), generator=order)
            gradients = self._gradients(load(model, decoded), self.proxy[batch], wanted[batch])
            target, remaining = dict(target), 1 - step / self.steps
            for name in trained:
                mean, square = moments[name]
                mean = _MEAN * mean + (1 - _MEAN) * gradients[name]
                square = _SQUARE * square + (1 - _SQUARE) * np.square(gradients[name])
                moments[name] = mean, square
                direction = mean / (1 - _MEAN ** (step + 1)) / (np.sqrt(square / (1 - _SQUARE ** (step + 1))) + 1e-12)
                target[name] = (target[name] - _STEP * error[name] * remaining * direction).astype(exact[name].dtype)
            nbytes, decoded = code(target)
            loss = self._loss(load(model, decoded), wanted)
            if nbytes <= limit and loss < lowest:
                best, lowest = target, loss
            elif nbytes > limit:  # move back to a target that takes fewer bytes
                target = {
                    name: array + _UNDO * (exact[name] - array) if name in trained else array
                    for name, array in target.items()
                }
        _log.info("tuned delta: loss to the exact model %.5f, was %.5f, in at most %d bytes", lowest, first, limit)
        return best

    def _loss(self, model: nn.Module, wanted: Tensor) -> float:
        return on_agreement(model, self.proxy, wanted, self.device).loss

    def _gradients(self, model: nn.Module, x: Tensor, wanted: Tensor) -> dict[str, np.ndarray]:
        log_probs = model(x.to(self.device)).log_softmax(-1)
        loss = -(wanted.to(self.device).softmax(-1) * log_probs).sum(-1).mean()
        model.zero_grad(set_to_none=True)
        loss.backward()
        return {
            name: (torch.zeros_like(p) if p.grad is None else p.grad).cpu().numpy()
            for name, p in model.named_parameters()
            if p.requires_grad
        }
