"""What an ensemble says: FedDF, Lin et al. 2020, https://arxiv.org/abs/2006.07242, and who in it knows what."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fedpress.compression.errors import DataError
from fedpress.server.distillation.weighing import WEIGHINGS, Knows

EVALUATION_BATCH = 100  # larger ones fall out of the cache
_LEAST = 1e-6  # of a weight, as a share of all: where nobody knows anything, all count alike


@dataclass(frozen=True)
class Teacher:
    """A model that teaches, of whatever architecture, and what is known of it.

    The next teacher may be the same module with other weights: whoever is given some takes them one at a time.
    """

    model: nn.Module  # scores, classes on the last axis, from inputs
    knows: Knows = field(default_factory=Knows)


def ensemble_scores(teachers: Iterable[Teacher], x: Tensor, weighing: str = "equal", device: str = "cpu") -> Tensor:
    """Return what `teachers` say of `x` together: log-probabilities (n, ..., classes) of their weighted mixture.

    Each teacher is taken from the iterable, asked and let go before the next: beside one model it takes three times the
    logits, whatever the number of teachers.
    """
    weigh = WEIGHINGS[weighing]
    total: Tensor | None = None
    alike = weights = torch.zeros(())
    count = 0
    for teacher in teachers:
        said = scores_of(teacher.model, x, device).log_softmax(-1)
        weight = weigh(said, teacher.knows)
        chances = said.exp_()
        count += 1
        if total is None:
            total, alike, weights = chances * weight, chances.clone(), weight.clone()
        else:
            total += chances * weight
            alike += chances
            weights = weights + weight
    if total is None:
        raise DataError("an ensemble needs at least one teacher")
    floor = _LEAST * weights.amax().clamp_min(torch.finfo(weights.dtype).tiny)
    mixture = (total + floor * alike / count) / (weights + floor)
    return mixture.clamp_min(torch.finfo(mixture.dtype).tiny).log_().log_softmax(-1)


def scores_of(model: nn.Module, x: Tensor, device: str = "cpu") -> Tensor:
    """Return the scores (n, ..., classes) of `model`, as in evaluation."""
    model.eval()
    with torch.inference_mode():
        parts = x.split(EVALUATION_BATCH)  # type: ignore[no-untyped-call]
        said = torch.cat([model(part.to(device)).cpu() for part in parts])
    return said.clone()  # outside inference mode: what is taught from it needs gradients elsewhere
