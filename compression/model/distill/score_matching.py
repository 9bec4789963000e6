"""Training of a student on given scores: distillation, Hinton et al. 2015, https://arxiv.org/abs/1503.02531."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fedpress.compression.model.evaluation import channels_last


@dataclass(frozen=True)
class ScoreMatching:
    """How a student is trained on scores."""

    steps: int = 200  # of Adam
    batch_size: int = 128  # inputs per step
    lr: float = 3e-3  # learning rate, falling to 0 along a cosine
    temperature: float = 1.0  # scores are divided by it: higher values give softer targets


def match_scores(
    student: nn.Module,
    x: Tensor,
    scores: Tensor,
    training: ScoreMatching,
    rng: np.random.Generator,
    device: str = "cpu",
) -> None:
    """Train `student`, of any architecture, in place to predict `scores` (n, ..., classes) from `x`."""
    temperature = training.temperature
    order = torch.Generator().manual_seed(int(rng.integers(2**63)))
    targets = (scores / temperature).softmax(-1)
    # Evaluation mode: a batch norm keeps the statistics of the nodes' data, not of the proxy's.
    student.eval()
    optimizer = torch.optim.Adam([p for p in student.parameters() if p.requires_grad], training.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, training.steps)
    x = channels_last(student, x)
    for _ in range(training.steps):
        batch = torch.randint(len(x), (training.batch_size,), generator=order)
        log_probs = (student(x[batch].to(device)) / temperature).log_softmax(-1)
        loss = -(targets[batch].to(device) * log_probs).sum(-1).mean() * temperature**2
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
