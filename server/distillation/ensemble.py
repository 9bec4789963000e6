"""What an ensemble says: FedDF, Lin et al. 2020, https://arxiv.org/abs/2006.07242, and who in it knows what."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fedpress.compression.errors import DataError
from fedpress.server.distillation.weighing import WEIGHINGS, Knows

EVALUATION_BATCH = 100  # larger ones fall out of the cache
_TINY = torch.finfo(torch.float32).tiny
_LEAST = 1e-6  # of a weight, as a share of all: where nobody knows anything, all count alike


@dataclass(frozen=True)
class Teacher:
    """A model that teaches, of whatever architecture, and what is known of it.

    The next teacher may be the same module with other weights: whoever is given some takes them one at a time.
    """

    model: nn.Module  # scores, classes on the last axis, from inputs
    knows: Knows = field(default_factory=Knows)


def ensemble_scores(
    teachers: Iterable[Teacher],
    x: Tensor,
    weighing: str = "equal",
    device: str = "cpu",
    mixing: str = "standardised",
) -> Tensor:
    """Return what `teachers` say of `x` together: log-probabilities (n, ..., classes).

    `probabilities` is the weighted mean of theirs. `standardised` first gives each teacher's scores of a class mean 0
    and variance 1 over `x`: whoever saw a class often says it of everything, which is a prior, and the prior of its own
    examples, as in Menon et al. 2021, https://arxiv.org/abs/2007.07314. What is left tells inputs apart.

    Each teacher is taken from the iterable, asked and let go before the next: beside one model it takes four times the
    logits, whatever the number of teachers.
    """
    weigh = WEIGHINGS[weighing]
    voices, spreads = _Mean(), _Mean()
    for teacher in teachers:
        said = scores_of(teacher.model, x, device)
        if not torch.isfinite(said).all():
            continue  # whoever overflows says nothing
        chances = said.log_softmax(-1)
        weight = weigh(chances, teacher.knows)
        if mixing == "probabilities":
            voices.add(chances.exp_(), weight)
            continue
        over = tuple(range(said.dim() - 1))
        spread = said.std(over, correction=0)
        voices.add(said.sub_(said.mean(over)).div_(spread.clamp_min(_TINY)), weight)
        spreads.add(spread, weight)
    if not voices.count:
        raise DataError("an ensemble needs at least one teacher whose scores are finite")
    if mixing == "probabilities":
        return voices.value().clamp_min(_TINY).log_().log_softmax(-1)
    return (voices.value() * spreads.value().mean()).log_softmax(-1)


class _Mean:
    """A weighted mean of tensors that come one at a time; where no weight is worth naming, all count alike."""

    def __init__(self) -> None:
        self.count = 0
        self._total = self._alike = self._weights = torch.zeros(())

    def add(self, value: Tensor, weight: Tensor) -> None:
        self.count += 1
        self._total, self._alike = self._total + value * weight, self._alike + value
        self._weights = self._weights + weight

    def value(self) -> Tensor:
        floor = _LEAST * self._weights.amax().clamp_min(_TINY)
        return (self._total + floor * self._alike / self.count) / (self._weights + floor)


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
