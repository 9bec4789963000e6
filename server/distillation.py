"""Ensemble distillation: FedDF, Lin et al. 2020, https://arxiv.org/abs/2006.07242."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fedpress.compression import Update
from fedpress.compression.errors import DataError
from fedpress.compression.message import KEY
from fedpress.compression.settings import require
from fedpress.server.aggregate import Vote

_log = logging.getLogger(KEY)
_EVALUATION_BATCH = 100  # larger ones fall out of the cache
_RATE = 1e-3  # of Adam, falling to 0 along a cosine: the paper's


@dataclass(frozen=True)
class Distilling:
    """Whether and how the round's models teach their average."""

    distil: bool = False  # teach the average, and keep what was taught where it is better
    distil_proxy: int = 2000  # examples held back from the nodes, to teach on; their targets are not looked at
    distil_guard: int = 1000  # examples held back from the nodes, to tell whether the taught model is better
    distil_steps: int = 100  # of Adam, in a round
    distil_batch: int = 128  # examples in a step
    distil_temperature: float = 1.0  # by which scores are divided: the higher, the more the less likely answers count

    def __post_init__(self) -> None:
        for name in ("distil_proxy", "distil_guard", "distil_steps", "distil_batch"):
            require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        require(self.distil_temperature > 0, "distil_temperature", "above 0", self.distil_temperature)


@dataclass(frozen=True)
class EnsembleDistillation:
    """Teaches the averaged model what the round's models say together, and keeps it if it got better.

    Teachers stay compressed and are decoded one at a time: memory is two models and the logits.
    """

    make: Callable[[], nn.Module]  # scores, classes on the last axis, from inputs
    proxy: Tensor  # inputs (n, ...) to teach on
    x: Tensor  # inputs (m, ...) to guard with
    y: Tensor  # and their targets
    settings: Distilling
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not len(self.proxy) or not len(self.x):
            raise DataError("distillation needs examples that no node has: to teach on, and to tell what it did")

    def __call__(self, averaged: Update, votes: Sequence[Vote], rng: np.random.Generator) -> Update:
        """Return the taught model, or `averaged` itself if that is better on the guard's examples."""
        model = self.make().to(self.device)
        before = self._judge(_load(model, averaged))
        ensemble = torch.stack([self._scores(_load(model, vote.decode()), self.proxy) for vote in votes]).mean(0)
        self._teach(_load(model, averaged), ensemble, rng)
        after = self._judge(model)
        better = after[0] < before[0] and after[1] >= before[1]
        said = "takes its place" if better else "is not taken"
        _log.info("distilled model %s: loss and accuracy %.4f %.4f, were %.4f %.4f", said, *after, *before)
        return {name: tensor.cpu().numpy() for name, tensor in model.state_dict().items()} if better else averaged

    def _teach(self, model: nn.Module, ensemble: Tensor, rng: np.random.Generator) -> None:
        """Train `model` in place to say what the ensemble says, at a temperature."""
        settings, heat = self.settings, self.settings.distil_temperature
        order = torch.Generator().manual_seed(int(rng.integers(2**63)))
        wanted = (ensemble / heat).softmax(-1)
        # As in evaluation: statistics of a batch norm belong to the nodes' data, not to the proxy's.
        model.eval()
        optimizer = torch.optim.Adam(model.parameters(), _RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.distil_steps)
        for _ in range(settings.distil_steps):
            batch = torch.randint(len(self.proxy), (settings.distil_batch,), generator=order)
            said = (model(self.proxy[batch].to(self.device)) / heat).log_softmax(-1)
            loss = -(wanted[batch].to(self.device) * said).sum(-1).mean() * heat**2
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()

    def _judge(self, model: nn.Module) -> tuple[float, float]:
        """Return mean loss and accuracy on the guard's examples."""
        scores = self._scores(model, self.x).flatten(0, -2)
        targets = self.y.flatten()
        loss = nn.functional.cross_entropy(scores, targets)
        return float(loss), float((scores.argmax(-1) == targets).float().mean())

    def _scores(self, model: nn.Module, x: Tensor) -> Tensor:
        model.eval()
        with torch.inference_mode():
            parts = x.split(_EVALUATION_BATCH)  # type: ignore[no-untyped-call]
            return torch.cat([model(part.to(self.device)).cpu() for part in parts]).clone()


def _load(model: nn.Module, weights: Update) -> nn.Module:
    model.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in weights.items()})
    return model
