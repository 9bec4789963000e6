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


def equal(_log_probs: Tensor, _statistics: TeacherStatistics) -> Tensor:
    """Equal weights, as in FedDF."""
    return torch.ones(())


def by_examples(_log_probs: Tensor, statistics: TeacherStatistics) -> Tensor:
    """By a teacher's number of examples, as in FedAvg."""
    return torch.tensor(float(statistics.examples))


def by_confidence(log_probs: Tensor, _statistics: TeacherStatistics) -> Tensor:
    """By the squared probability of a teacher's prediction: a more confident teacher has a larger weight."""
    return log_probs.amax(-1, keepdim=True).exp().square()


def by_entropy(log_probs: Tensor, _statistics: TeacherStatistics) -> Tensor:
    """By one minus the entropy of a teacher's prediction relative to its maximum."""
    entropy: Tensor = torch.special.entr(log_probs.exp()).sum(-1, keepdim=True)
    return 1 - entropy / math.log(max(2, log_probs.shape[-1]))


def by_classes(log_probs: Tensor, statistics: TeacherStatistics) -> Tensor:
    """By a teacher's number of examples of a class: its weight is 0 for a class that it was not trained on."""
    if statistics.counts is None:
        raise DataError("weighing by classes needs the class counts of every teacher")
    if len(statistics.counts) != log_probs.shape[-1]:
        raise DataError(
            f"class counts must be of the model's {log_probs.shape[-1]} classes, got {len(statistics.counts)}"
        )
    return statistics.counts.to(log_probs.dtype)


WEIGHINGS: dict[str, Weighing] = {
    "equal": equal,
    "examples": by_examples,
    "confidence": by_confidence,
    "entropy": by_entropy,
    "classes": by_classes,
}
