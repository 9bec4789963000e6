"""Teaching a student what an ensemble says: distillation, Hinton et al. 2015, https://arxiv.org/abs/1503.02531."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from fedpress.extensions.distillation.ensemble import quick
from fedpress.extensions.distillation.settings import DistillationSettings

_LOOKS = 10  # at what is watched


def teach(
    student: nn.Module,
    x: Tensor,
    scores: Tensor,
    settings: DistillationSettings,
    rng: np.random.Generator,
    device: str = "cpu",
    watch: Callable[[nn.Module], float] | None = None,
) -> None:
    """Train `student` in place, whatever its architecture, to say of `x` what `scores` (n, ..., classes) say.

    With `watch`, a loss, teaching stops when that has not fallen for `patience` looks, and the student is left
    as it was at its lowest.
    """
    heat = settings.temperature
    order = torch.Generator().manual_seed(int(rng.integers(2**63)))
    wanted = (scores / heat).softmax(-1)
    # As in evaluation: statistics of a batch norm belong to the nodes' data, not to the proxy's.
    student.eval()
    optimizer = torch.optim.Adam([p for p in student.parameters() if p.requires_grad], settings.proxy_lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    x = quick(student, x)
    best = _Best(student, watch, settings.patience) if watch else None
    for step in range(1, settings.steps + 1):
        batch = torch.randint(len(x), (settings.proxy_batch_size,), generator=order)
        said = (student(x[batch].to(device)) / heat).log_softmax(-1)
        loss = -(wanted[batch].to(device) * said).sum(-1).mean() * heat**2
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if best and step % max(1, settings.steps // _LOOKS) == 0 and best.look():
            break
    if best:
        best.restore()


class _Best:
    """The student as it was when what is watched was lowest."""

    def __init__(self, student: nn.Module, watch: Callable[[nn.Module], float], patience: int) -> None:
        self._student, self._watch, self._patience = student, watch, patience
        self._lowest, self._since = math.inf, 0
        self._weights: dict[str, Tensor] = {}

    def look(self) -> bool:
        """Return whether it has been long enough since the lowest."""
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
