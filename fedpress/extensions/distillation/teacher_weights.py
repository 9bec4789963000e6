"""Weights of teachers in the ensemble, by example and by class.

A weighing is a function (log-probabilities (n, ..., classes), TeacherStatistics) -> weights that broadcast to them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fedpress.common.errors import DataError


@dataclass(frozen=True)
class TeacherStatistics:
    """Statistics of a teacher's training examples."""

    examples: float = 1.0  # number of training examples
    counts: Tensor | None = None  # (classes,) examples of each class; None if unknown


Weighing = Callable[[Tensor, TeacherStatistics], Tensor]


def equal(_said: Tensor, _knows: TeacherStatistics) -> Tensor:
    """Equal weights, as in FedDF."""
    return torch.ones(())


def by_examples(_said: Tensor, knows: TeacherStatistics) -> Tensor:
    """By a teacher's number of examples, as in FedAvg."""
    return torch.tensor(float(knows.examples))


def by_confidence(said: Tensor, _knows: TeacherStatistics) -> Tensor:
    """By the squared probability of a teacher's prediction: a more confident teacher has a larger weight."""
    return said.amax(-1, keepdim=True).exp().square()


def by_entropy(said: Tensor, _knows: TeacherStatistics) -> Tensor:
    """By one minus the entropy of a teacher's prediction relative to its maximum."""
    entropy: Tensor = torch.special.entr(said.exp()).sum(-1, keepdim=True)
    return 1 - entropy / math.log(max(2, said.shape[-1]))


def by_classes(said: Tensor, knows: TeacherStatistics) -> Tensor:
    """By a teacher's number of examples of a class: its weight is 0 for a class that it was not trained on."""
    if knows.counts is None:
        raise DataError("weighing by classes needs the class counts of every teacher")
    if len(knows.counts) != said.shape[-1]:
        raise DataError(f"class counts must be of the model's {said.shape[-1]} classes, got {len(knows.counts)}")
    return knows.counts.to(said.dtype)


WEIGHINGS: dict[str, Weighing] = {
    "equal": equal,
    "examples": by_examples,
    "confidence": by_confidence,
    "entropy": by_entropy,
    "classes": by_classes,
}
