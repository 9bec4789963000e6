"""The training of a student on its teacher's scores."""

import logging
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from fedpress.common.errors import DataError, SettingError
from fedpress.common.logs import LOGGER
from fedpress.compression.model.distill.augmentation import augment
from fedpress.compression.model.distill.loss import loss_of
from fedpress.compression.model.distill.settings import StudentSettings

Progress = Callable[[str], None]
_log = logging.getLogger(LOGGER)
_RISE = 10  # one step in so many is one in which the learning rate rises


def train_student(
    student: nn.Module,
    teacher: nn.Module,
    x: Tensor,
    y: Tensor | None,
    settings: StudentSettings,
    rng: np.random.Generator,
    device: str = "cpu",
    progress: Progress = _log.info,
) -> None:
    """Train `student` in place to give the scores of `teacher` for the inputs `x` (n, ...), and the targets `y` if any.

    The teacher is given the inputs after augmentation, and does not change. `progress` is called with a line after each
    epoch.

    Raises
    ------
    SettingError
        If the settings cannot be used with the models or the inputs.
    DataError
        If there are no inputs, the models have different numbers of classes, or training diverges.
    """
    training = _Training(student, teacher, x, y, settings, rng, device)
    training.train_on_scores(progress)
    student.eval()


class _Training:
    """The inputs, their order, and both models."""

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        x: Tensor,
        y: Tensor | None,
        settings: StudentSettings,
        rng: np.random.Generator,
        device: str,
    ) -> None:
        if not len(x):
            raise DataError("the examples for a student must not be empty")
        if y is None and settings.alpha < 1:
            raise SettingError(f"alpha must be 1 for examples without targets, got {settings.alpha}")
        if x.dim() != 4 and (settings.shift or settings.flip):
            raise SettingError(f"inputs must be images for shift and flip, got inputs of shape {tuple(x.shape[1:])}")
        self._settings, self._device = settings, device
        self._order = torch.Generator().manual_seed(int(rng.integers(2**63)))
        torch.manual_seed(int(rng.integers(2**63)))  # of dropout
        self._x, self._y = x, y
        self._student, self._teacher = student.to(device), teacher.to(device).eval()
        some = x[:2].to(device)
        with torch.no_grad():
            counts = [model(some).shape[-1] for model in (teacher, student.eval())]
        if counts[0] != counts[1]:
            raise DataError(f"the student must have the teacher's {counts[0]} classes, got {counts[1]}")
        if x.dim() == 4:  # with which convolutions are faster
            for model in (student, teacher):
                model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def train_on_scores(self, progress: Progress) -> None:
        """Train the whole student."""
        settings, epochs = self._settings, self._settings.epochs
        optimizer = torch.optim.AdamW(self._student.parameters(), settings.lr, weight_decay=settings.weight_decay)
        steps = epochs * -(-len(self._x) // settings.batch_size)
        # torch divides by the length of the rise minus one: it needs two steps.
        rise = 2 / steps if steps == _RISE else 1 / _RISE
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.lr, steps, pct_start=rise)
        for epoch in range(1, epochs + 1):
            self._student.train()
            losses = []
            for x, y in self._batches():
                teacher = self._teacher_scores(x)
                loss = loss_of(self._student(x), teacher, y, settings.temperature, settings.alpha)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
                losses.append(float(loss.detach()))
            self._check(losses)
            progress(f"epoch {epoch}/{epochs}: loss {np.mean(losses):.4f}")

    def _check(self, losses: list[float]) -> None:
        """Raise DataError if an epoch diverged."""
        self._student.eval()  # so that this call does not change it
        with torch.no_grad():
            scores = self._student(self._x[:2].to(self._device))
        self._student.train()
        tensors = (scores, *self._student.parameters(), *self._student.buffers())
        if not (np.isfinite(losses).all() and all(tensor.isfinite().all() for tensor in tensors)):
            raise DataError(f"the student's weights must stay finite: training diverges at lr {self._settings.lr}")

    def _teacher_scores(self, x: Tensor) -> Tensor | None:
        if not self._settings.alpha:
            return None
        with torch.no_grad():
            scores: Tensor = self._teacher(x)
        return scores

    def _batches(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield an epoch's batches in a new order; a last batch of one, too few for batch norms, is left out."""
        settings, order = self._settings, torch.randperm(len(self._x), generator=self._order)
        for batch in order.split(settings.batch_size):  # type: ignore[no-untyped-call]
            if len(batch) == 1 and len(order) > 1:
                continue
            x = self._x[batch]
            if settings.shift or settings.flip:
                x = augment(x, settings.shift, settings.flip, self._order)
            yield x.to(self._device), None if self._y is None else self._y[batch].to(self._device)
