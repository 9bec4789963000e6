"""Training of a student on given scores: distillation, Hinton et al. 2015, https://arxiv.org/abs/1503.02531."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fedpress.compression.model.evaluation import channels_last

_EVALUATIONS = 10  # of `watch` in a training


@dataclass(frozen=True)
class ScoreMatching:
    """How a student is trained on scores."""

    steps: int = 200  # of Adam
    batch_size: int = 128  # inputs per step
    lr: float = 3e-3  # learning rate, falling to 0 along a cosine
    temperature: float = 1.0  # scores are divided by it: higher values give softer targets
    patience: int = 0  # evaluations, ten in a training, without improvement before it stops; 0 for never


def match_scores(
    student: nn.Module,
    x: Tensor,
    scores: Tensor,
    training: ScoreMatching,
    rng: np.random.Generator,
    device: str = "cpu",
    watch: Callable[[nn.Module], float] | None = None,
) -> None:
    """Train `student`, of any architecture, in place to predict `scores` (n, ..., classes) from `x`.

    With `watch`, a loss, training stops when that has not fallen for `patience` evaluations, and the student gets the
    weights of the lowest loss.
    """
    temperature = training.temperature
    order = torch.Generator().manual_seed(int(rng.integers(2**63)))
    targets = (scores / temperature).softmax(-1)
    # Evaluation mode: a batch norm keeps the statistics of the nodes' data, not of the proxy's.
    student.eval()
    optimizer = torch.optim.Adam([p for p in student.parameters() if p.requires_grad], training.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, training.steps)
    x = channels_last(student, x)
    best = _BestWeights(student, watch, training.patience) if watch else None
    for step in range(1, training.steps + 1):
        batch = torch.randint(len(x), (training.batch_size,), generator=order)
        log_probs = (student(x[batch].to(device)) / temperature).log_softmax(-1)
        loss = -(targets[batch].to(device) * log_probs).sum(-1).mean() * temperature**2
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if best and step % max(1, training.steps // _EVALUATIONS) == 0 and best.evaluate():
            break
    if best:
        best.restore()


class _BestWeights:
    """The student's weights at the lowest loss."""

    def __init__(self, student: nn.Module, watch: Callable[[nn.Module], float], patience: int) -> None:
        self._student, self._watch, self._patience = student, watch, patience
        self._lowest, self._since = math.inf, 0
        self._weights: dict[str, Tensor] = {}

    def evaluate(self) -> bool:
        """Evaluate the student; return whether the loss has not fallen for `patience` evaluations."""
        loss = self._watch(self._student)
        if loss < self._lowest:
            self._lowest, self._since = loss, 0
            self._weights = {name: tensor.detach().clone() for name, tensor in self._student.state_dict().items()}
        else:
            self._since += 1
        return self._since >= self._patience

    def restore(self) -> None:
        if self._weights:
            self._student.load_state_dict(self._weights)
