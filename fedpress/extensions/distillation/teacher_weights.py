"""What each teacher's word weighs, example by example and class by class.

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
    """What is known of a teacher beside its weights."""

    examples: float = 1.0  # that it has seen
    counts: Tensor | None = None  # (classes,) how many of each; None if it does not say


Weighing = Callable[[Tensor, TeacherStatistics], Tensor]


def equal(_said: Tensor, _knows: TeacherStatistics) -> Tensor:
    """All alike, as in FedDF."""
    return torch.ones(())


def by_examples(_said: Tensor, knows: TeacherStatistics) -> Tensor:
    """By how many examples a teacher has seen, as in FedAvg."""
    return torch.tensor(float(knows.examples))


def by_confidence(said: Tensor, _knows: TeacherStatistics) -> Tensor:
    """By the probability of a teacher's likeliest answer, squared: who is sure of an example says most about it."""
    return said.amax(-1, keepdim=True).exp().square()


def by_entropy(said: Tensor, _knows: TeacherStatistics) -> Tensor:
    """By how far a teacher's answer is from knowing nothing: 1 less its entropy over the largest there is."""
    entropy: Tensor = torch.special.entr(said.exp()).sum(-1, keepdim=True)
    return 1 - entropy / math.log(max(2, said.shape[-1]))


def by_classes(said: Tensor, knows: TeacherStatistics) -> Tensor:
    """By how many examples of a class a teacher has seen: what it says of one that it never saw is worth nothing."""
    if knows.counts is None:
        raise DataError("weighing by classes needs the class counts of every teacher")
    if len(knows.counts) != said.shape[-1]:
        raise DataError(f"the model tells {said.shape[-1]} classes apart, its node counts {len(knows.counts)}")
    return knows.counts.to(said.dtype)


WEIGHINGS: dict[str, Weighing] = {
    "equal": equal,
    "examples": by_examples,
    "confidence": by_confidence,
    "entropy": by_entropy,
    "classes": by_classes,
}
