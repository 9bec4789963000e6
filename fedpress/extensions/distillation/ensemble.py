"""What an ensemble says: FedDF, Lin et al. 2020, https://arxiv.org/abs/2006.07242, and who in it knows what."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fedpress.common.errors import DataError
from fedpress.extensions.distillation.teacher_weights import WEIGHINGS, TeacherStatistics

EVALUATION_BATCH = 100  # larger ones fall out of the cache
_TINY = torch.finfo(torch.float32).tiny
_LEAST = 1e-6  # of a weight, as a share of all: where nobody knows anything, all count alike; and of a class's share
_FITS = 20  # after which shares of classes change no more


@dataclass(frozen=True)
class Teacher:
    """A model that teaches, of whatever architecture, and what is known of it.

    The next teacher may be the same module with other weights: whoever is given some takes them one at a time.
    """

    model: nn.Module  # scores, classes on the last axis, from inputs
    knows: TeacherStatistics = field(default_factory=TeacherStatistics)


def ensemble_scores(
    teachers: Iterable[Teacher],
    x: Tensor,
    weighing: str = "equal",
    device: str = "cpu",
    *,
    balance: bool = False,
) -> Tensor:
    """Return what `teachers` say of `x` together: log-probabilities (n, ..., classes) of their weighted mixture.

    With `balance`, each of them is heard without the prior of its own examples.

    Each teacher is taken from the iterable, asked and let go before the next: beside one model it takes a few times
    the logits, whatever the number of teachers.
    """
    weigh = WEIGHINGS[weighing]
    total = alike = weights = torch.zeros(())
    count = 0
    for teacher in teachers:
        said = scores_of(teacher.model, x, device).log_softmax(-1)
        if not torch.isfinite(said).all():
            continue  # whoever overflows says nothing
        said = balanced(said) if balance else said
        weight = weigh(said, teacher.knows)
        chances = said.exp_()
        total, alike, weights = total + chances * weight, alike + chances, weights + weight
        count += 1
    if not count:
        raise DataError("an ensemble needs at least one teacher whose scores are finite")
    floor = _LEAST * weights.amax().clamp_min(_TINY)
    mixture = (total + floor * alike / count) / (weights + floor)
    return mixture.clamp_min(_TINY).log_().log_softmax(-1)


def balanced(said: Tensor) -> Tensor:
    """Return log-probabilities (n, ..., classes) moved, class by class, until every class is as likely over all inputs.

    Whoever has seen a class often says it of everything. To divide by its prior is Saerens et al. 2002,
    https://doi.org/10.1162/089976602753284446; the prior is what the answers themselves average to, found as in
    iterative proportional fitting (Deming and Stephan 1940, https://doi.org/10.1214/aoms/1177731829).
    """
    over = tuple(range(said.dim() - 1))
    for _ in range(_FITS):
        said = (said - said.exp().mean(over).clamp_min(_LEAST).log()).log_softmax(-1)
    return said


def scores_of(model: nn.Module, x: Tensor, device: str = "cpu") -> Tensor:
    """Return the scores (n, ..., classes) of `model`, as in evaluation."""
    model.eval()
    # Laid out alike whoever had the model before: another layout would be other bits.
    parts = quick(model, x).split(EVALUATION_BATCH)  # type: ignore[no-untyped-call]
    with torch.inference_mode():
        said = torch.cat([model(part.to(device)).cpu() for part in parts])
    return said.clone()  # outside inference mode: what is taught from it needs gradients elsewhere


def quick(model: nn.Module, x: Tensor) -> Tensor:
    """Return pictures in the memory format on which convolutions are fastest on a CPU, and lay `model` out so."""
    if x.dim() != 4:
        return x
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return x.contiguous(memory_format=torch.channels_last)
