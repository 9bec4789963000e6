"""Predictions of an ensemble with weighted members: FedDF, Lin et al. 2020, https://arxiv.org/abs/2006.07242."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fedpress.common.errors import DataError
from fedpress.compression.model.evaluation import scores_of
from fedpress.extensions.distillation.teacher_weights import WEIGHINGS, TeacherStatistics

_TINY = torch.finfo(torch.float32).tiny
_FLOOR = 1e-6  # lower bound of a relative weight, for equal weights where all are 0, and of a class's probability
_ITERATIONS = 20  # after which the class probabilities have converged


@dataclass(frozen=True)
class Teacher:
    """A teacher model of any architecture, and its statistics.

    The next teacher may be the same module with other weights: use each before taking the next.
    """

    model: nn.Module  # from inputs to scores, classes on the last axis
    statistics: TeacherStatistics = field(default_factory=TeacherStatistics)


def ensemble_scores(
    teachers: Iterable[Teacher],
    x: Tensor,
    weighing: str = "equal",
    device: str = "cpu",
    *,
    balance: bool = False,
) -> Tensor:
    """Return the log-probabilities (n, ..., classes) of the weighted mixture of `teachers` on `x`.

    With `balance`, each teacher is corrected for the class prior of its examples.

    Teachers are evaluated one at a time: memory is one model and a few times the logits, whatever the number of
    teachers.
    """
    weigh = WEIGHINGS[weighing]
    total = unweighted = weights = torch.zeros(())
    count = 0
    for teacher in teachers:
        log_probs = scores_of(teacher.model, x, device).log_softmax(-1)
        if not torch.isfinite(log_probs).all():
            continue  # a teacher whose scores overflow is left out
        log_probs = balanced(log_probs) if balance else log_probs
        weight = weigh(log_probs, teacher.statistics)
        probs = log_probs.exp_()
        total, unweighted, weights = total + probs * weight, unweighted + probs, weights + weight
        count += 1
    if not count:
        raise DataError("an ensemble needs at least one teacher whose scores are finite")
    floor = _FLOOR * weights.amax().clamp_min(_TINY)
    mixture = (total + floor * unweighted / count) / (weights + floor)
    return mixture.clamp_min(_TINY).log_().log_softmax(-1)


def balanced(log_probs: Tensor) -> Tensor:
    """Return log-probabilities (n, ..., classes) shifted by class until all are equally likely over all inputs.

    A model predicts the classes that are frequent in its examples too often. Division by the prior follows Saerens et
    al. 2002, https://doi.org/10.1162/089976602753284446; the prior is the mean prediction, estimated by iterative
    proportional fitting (Deming and Stephan 1940, https://doi.org/10.1214/aoms/1177731829).
    """
    axes = tuple(range(log_probs.dim() - 1))
    for _ in range(_ITERATIONS):
        log_probs = (log_probs - log_probs.exp().mean(axes).clamp_min(_FLOOR).log()).log_softmax(-1)
    return log_probs
