"""The round's distillation: what `Compressed` calls after aggregation."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fedpress.compression import Update
from fedpress.compression.errors import DataError
from fedpress.compression.message import KEY
from fedpress.server.aggregate import Vote
from fedpress.server.distillation.ensemble import Teacher, ensemble_scores, scores_of
from fedpress.server.distillation.settings import Distilling
from fedpress.server.distillation.teaching import teach
from fedpress.server.distillation.weighing import Knows

_log = logging.getLogger(KEY)


@dataclass(frozen=True)
class EnsembleDistillation:
    """Teaches the averaged model what the round's models say together, and keeps it if it got better.

    Teachers stay compressed and are decoded one at a time: memory is two models and the logits.
    """

    make: Callable[[], nn.Module]  # scores, classes on the last axis, from inputs
    proxy: Tensor  # inputs (n, ...) to teach on
    x: Tensor  # inputs (m, ...) to guard with
    y: Tensor  # and their targets
    settings: Distilling
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not len(self.proxy) or not len(self.x):
            raise DataError("distillation needs examples that no node has: to teach on, and to tell what it did")

    def __call__(self, averaged: Update, votes: Sequence[Vote], rng: np.random.Generator) -> Update:
        """Return the taught model, or `averaged` itself if that is better on the guard's examples."""
        model = self.make().to(self.device)
        before = self._judge(load(model, averaged))
        teachers = self._teachers(model, votes)
        scores = ensemble_scores(teachers, self.proxy, self.settings.distil_weighing, self.device)
        teach(load(model, averaged), self.proxy, scores, self.settings, rng, self.device)
        after = self._judge(model)
        better = after[0] < before[0] and after[1] >= before[1]
        said = "takes its place" if better else "is not taken"
        _log.info("distilled model %s: loss and accuracy %.4f %.4f, were %.4f %.4f", said, *after, *before)
        return {name: tensor.cpu().numpy() for name, tensor in model.state_dict().items()} if better else averaged

    def _teachers(self, model: nn.Module, votes: Sequence[Vote]) -> Iterator[Teacher]:
        for vote in votes:
            yield Teacher(load(model, vote.decode()), Knows())

    def _judge(self, model: nn.Module) -> tuple[float, float]:
        """Return mean loss and accuracy on the guard's examples."""
        scores = scores_of(model, self.x, self.device).flatten(0, -2)
        targets = self.y.flatten()
        loss = nn.functional.cross_entropy(scores, targets)
        return float(loss), float((scores.argmax(-1) == targets).float().mean())


def load(model: nn.Module, weights: Update) -> nn.Module:
    """Return `model` with these weights."""
    model.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in weights.items()})
    return model
