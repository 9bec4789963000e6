"""Teaching a student what an ensemble says: distillation, Hinton et al. 2015, https://arxiv.org/abs/1503.02531."""

import numpy as np
import torch
from torch import Tensor, nn

from fedpress.server.distillation.settings import Distilling


def teach(
    student: nn.Module,
    x: Tensor,
    scores: Tensor,
    settings: Distilling,
    rng: np.random.Generator,
    device: str = "cpu",
) -> None:
    """Train `student` in place, whatever its architecture, to say of `x` what `scores` (n, ..., classes) say."""
    heat = settings.distil_temperature
    order = torch.Generator().manual_seed(int(rng.integers(2**63)))
    wanted = (scores / heat).softmax(-1)
    # As in evaluation: statistics of a batch norm belong to the nodes' data, not to the proxy's.
    student.eval()
    optimizer = torch.optim.Adam([p for p in student.parameters() if p.requires_grad], settings.distil_lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.distil_steps)
    for _ in range(settings.distil_steps):
        batch = torch.randint(len(x), (settings.distil_batch,), generator=order)
        said = (student(x[batch].to(device)) / heat).log_softmax(-1)
        loss = -(wanted[batch].to(device) * said).sum(-1).mean() * heat**2
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
