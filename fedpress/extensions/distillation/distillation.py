"""The round's distillation: what `Compressed` calls after aggregation."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedpress.common.errors import DataError, SettingError
from fedpress.common.logs import LOGGER
from fedpress.compression import Update
from fedpress.extensions.distillation.acceptance import Verdict, decide, on_agreement, on_targets
from fedpress.extensions.distillation.class_counts import read_counts
from fedpress.extensions.distillation.ensemble import Teacher, ensemble_scores, scores_of
from fedpress.extensions.distillation.proxies import Proxy, Teachers
from fedpress.extensions.distillation.settings import DistillationSettings
from fedpress.extensions.distillation.student_training import teach
from fedpress.extensions.distillation.teacher_weights import TeacherStatistics
from fedpress.server.aggregation.client_update import ClientUpdate
from fedpress.server.messaging.node_evaluation import Ask, ModelScore

_log = logging.getLogger(LOGGER)
_KEPT = 10  # a tenth of the proxy is not taught on: it tells how far what was taught holds


@dataclass(frozen=True)
class TeachingRound:
    """The round in which a model is taught."""

    ask: Ask | None = None  # lets the round's nodes evaluate models; None if they cannot be asked
    previous: Update | None = None  # the model that the round began with; None if it was not trained yet


@dataclass(frozen=True)
class DistilledModel:
    """What came of teaching."""

    model: Update  # the taught model, or the averaged one itself
    facts: Mapping[str, Any] = field(default_factory=dict)  # for the round's record, JSON; empty if nobody taught


@dataclass(frozen=True)
class EnsembleDistillation:
    """Teaches the averaged model what the round's models say together, and keeps it if it got better.

    Teachers stay compressed and are decoded one at a time: memory is two models and the logits.
    """

    make: Callable[..., nn.Module]  # scores, classes on the last axis, from inputs
    proxy: Proxy  # what to teach on
    x: Tensor  # inputs (m, ...) to guard with, with the criterion held-out
    y: Tensor  # and their targets
    settings: DistillationSettings
    device: str = "cpu"
    teacher: Callable[[ClientUpdate], nn.Module] | None = None  # of an update's architecture; None if that of `make`

    def __post_init__(self) -> None:
        if self.settings.criterion == "held-out" and not len(self.x):
            raise SettingError(
                "criterion held-out needs examples that no node has: hold some back with guard-examples, or let nodes "
                "judge (criterion clients), or the ensemble itself (agreement)"
            )

    def __call__(
        self,
        averaged: Update,
        updates: Sequence[ClientUpdate],
        rng: np.random.Generator,
        teaching: TeachingRound = TeachingRound(),
    ) -> DistilledModel:
        """Return the taught model, or `averaged` itself if that is better by the guard's criterion."""
        settings, device = self.settings, self.device
        model = self.make().to(device)
        able = self._who_can_teach(updates, model)
        if not able:
            return DistilledModel(averaged)
        began = teaching.previous if settings.previous_model else None
        previous = Teacher(load(self.make().to(device), began), _typical(able)) if began else None
        teachers = _Round(self.teacher or (lambda _: model), able, previous)
        x = self.proxy(teachers, rng)
        try:
            scores = ensemble_scores(teachers, x, settings.teacher_weights, device, balance=settings.balance)
        except DataError as error:
            _log.warning("not distilled: %s", error)
            return DistilledModel(averaged)
        kept = max(1, len(x) // _KEPT) if self._needs_agreement else 0
        order = torch.from_numpy(rng.permutation(len(x)) if kept else np.arange(len(x)))
        taught_on, apart = order[kept:], order[:kept]
        agreement = partial(on_agreement, x=x[apart], wanted=scores[apart], device=device)
        targets = partial(on_targets, x=self.x, y=self.y, device=device)
        judge = targets if settings.criterion == "held-out" else agreement
        load(model, averaged)
        before = judge(model) if settings.criterion in ("held-out", "agreement") else None
        watch = (lambda student: judge(student).loss) if settings.patience else None
        teach(model, x[taught_on], scores[taught_on], settings, rng, device, watch)
        taught = {name: np.ascontiguousarray(tensor.cpu().numpy()) for name, tensor in model.state_dict().items()}
        if all(np.isfinite(array).all() for array in taught.values()):
            verdict = self._verdict([averaged, taught], before, judge(model) if before else None, teaching)
        else:
            _log.warning("what was taught holds NaN or infinity: a proxy-lr of %g is too high", settings.proxy_lr)
            verdict = Verdict(settings.criterion, taken=False)
        _log.info("%s", verdict)
        facts = {**verdict.facts(), "teachers": len(teachers), "inputs": len(x)}
        return DistilledModel(taught if verdict.taken else averaged, facts)

    @property
    def _needs_agreement(self) -> bool:
        criterion = self.settings.criterion
        return criterion == "agreement" or (criterion != "held-out" and self.settings.patience > 0)

    def _who_can_teach(
        self, updates: Sequence[ClientUpdate], model: nn.Module
    ) -> list[tuple[ClientUpdate, TeacherStatistics]]:
        """Return the votes whose weight in the ensemble can be told."""
        if self.settings.teacher_weights != "classes":
            return [(update, TeacherStatistics(update.weight)) for update in updates]
        nothing = torch.zeros((1, *self.x.shape[1:]), dtype=self.x.dtype)
        classes = scores_of(model, nothing, self.device).shape[-1]
        said = [(update, read_counts(update.message, classes)) for update in updates]
        able = [(update, TeacherStatistics(update.weight, counts)) for update, counts in said if counts is not None]
        if len(able) < len(updates):
            _log.warning(
                "%d of %d replies do not say how many examples of each of %d classes they have: they do not teach",
                *(len(updates) - len(able), len(updates), classes),
            )
        return able

    def _verdict(
        self, models: Sequence[Update], before: ModelScore | None, after: ModelScore | None, teaching: TeachingRound
    ) -> Verdict:
        """Return the verdict on two models, the averaged one and the taught one, with their scores if there are any."""
        criterion = self.settings.criterion
        if criterion == "none":
            return Verdict(criterion, taken=True)
        if criterion == "clients":
            scores = teaching.ask(models) if teaching.ask is not None else []
            before, after = scores if scores else (None, None)
        if before is None or after is None:
            return Verdict(criterion, taken=False)
        return decide(criterion, before, after, self.settings.margin)


@dataclass(frozen=True)
class _Round(Teachers):
    """A round's updates as teachers that take turns with one module, or one for each architecture.

    The model that they started from may be one more, as in the temporal ensembles of FedSDD, Kwan and Song 2023,
    https://arxiv.org/abs/2312.17029.
    """

    module: Callable[[ClientUpdate], nn.Module]
    updates: list[tuple[ClientUpdate, TeacherStatistics]]
    previous: Teacher | None

    def __len__(self) -> int:
        return len(self.updates) + (self.previous is not None)

    def __iter__(self) -> Iterator[Teacher]:
        for update, knows in self.updates:
            yield Teacher(load(self.module(update), update.decode()), knows)
        if self.previous is not None:
            yield self.previous


def _typical(able: Sequence[tuple[ClientUpdate, TeacherStatistics]]) -> TeacherStatistics:
    """Return what a teacher knows that has seen as much as the mean of these, and of every class alike."""
    mean = sum(knows.examples for _, knows in able) / len(able)
    counts = [knows.counts for _, knows in able if knows.counts is not None]
    return TeacherStatistics(mean, torch.full_like(counts[0], float(torch.stack(counts).mean())) if counts else None)


def load(model: nn.Module, weights: Update) -> nn.Module:
    """Return `model` with these weights."""
    model.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in weights.items()})
    return model
