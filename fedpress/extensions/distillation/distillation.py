"""The distillation of a round's models into their average, after aggregation."""

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
from fedpress.compression.model.distill.score_matching import ScoreMatching, match_scores
from fedpress.compression.model.evaluation import scores_of
from fedpress.extensions.distillation.acceptance import Verdict, decide, on_agreement, on_targets
from fedpress.extensions.distillation.class_counts import read_counts
from fedpress.extensions.distillation.ensemble import Teacher, ensemble_scores
from fedpress.extensions.distillation.proxies import Proxy, Teachers
from fedpress.extensions.distillation.settings import DistillationSettings
from fedpress.extensions.distillation.teacher_weights import TeacherStatistics
from fedpress.server.aggregation.client_update import ClientUpdate
from fedpress.server.messaging.node_evaluation import Ask, ModelScore

_log = logging.getLogger(LOGGER)
_HELD_OUT = 10  # one in so many proxy inputs is not trained on, and measures the agreement with the ensemble


@dataclass(frozen=True)
class DistillationContext:
    """The round in which a model is distilled."""

    ask: Ask | None = None  # evaluates models on the round's nodes; None if they cannot evaluate
    previous: Update | None = None  # the round's first model; None if it is not trained yet


@dataclass(frozen=True)
class DistilledModel:
    """The result of a distillation."""

    model: Update  # the distilled model, or the averaged one itself
    facts: Mapping[str, Any] = field(default_factory=dict)  # for the round's record, JSON; empty without teachers


@dataclass(frozen=True)
class EnsembleDistillation:
    """Trains the averaged model on the ensemble of the round's models, and keeps the result if it is better.

    Teachers are decoded one at a time, so it takes the memory of two models and the logits.
    """

    make: Callable[..., nn.Module]  # returns a model of inputs to scores, classes on the last axis
    proxy: Proxy  # the inputs to train on
    x: Tensor  # inputs (m, ...) of the guard, for the criterion held-out
    y: Tensor  # their targets
    settings: DistillationSettings
    device: str = "cpu"
    teacher: Callable[[ClientUpdate], nn.Module] | None = None  # module for an update; None for that of `make`

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
        context: DistillationContext = DistillationContext(),
    ) -> DistilledModel:
        """Return the distilled model, or `averaged` itself if the guard rejects it."""
        settings, device = self.settings, self.device
        model = self.make().to(device)
        usable = self._usable_teachers(updates, model)
        if not usable:
            return DistilledModel(averaged)
        previous_weights = context.previous if settings.previous_model else None
        previous = None
        if previous_weights:
            previous = Teacher(load(self.make().to(device), previous_weights), _mean_statistics(usable))
        teachers = _RoundTeachers(self.teacher or (lambda _: model), usable, previous)
        x = self.proxy(teachers, rng)
        try:
            scores = ensemble_scores(teachers, x, settings.teacher_weights, device, balance=settings.balance)
        except DataError as error:
            _log.warning("not distilled: %s", error)
            return DistilledModel(averaged)
        held_out_count = max(1, len(x) // _HELD_OUT) if settings.criterion == "agreement" else 0
        order = torch.from_numpy(rng.permutation(len(x)) if held_out_count else np.arange(len(x)))
        trained_on, held_out = order[held_out_count:], order[:held_out_count]
        agreement = partial(on_agreement, x=x[held_out], wanted=scores[held_out], device=device)
        targets = partial(on_targets, x=self.x, y=self.y, device=device)
        judge = targets if settings.criterion == "held-out" else agreement
        load(model, averaged)
        before = judge(model) if settings.criterion in ("held-out", "agreement") else None
        training = ScoreMatching(settings.steps, settings.proxy_batch_size, settings.proxy_lr, settings.temperature)
        match_scores(model, x[trained_on], scores[trained_on], training, rng, device)
        distilled = {name: np.ascontiguousarray(tensor.cpu().numpy()) for name, tensor in model.state_dict().items()}
        if all(np.isfinite(array).all() for array in distilled.values()):
            verdict = self._verdict([averaged, distilled], before, judge(model) if before else None, context)
        else:
            _log.warning("the distilled model has NaN or infinity: a proxy-lr of %g is too high", settings.proxy_lr)
            verdict = Verdict(settings.criterion, taken=False)
        _log.info("%s", verdict)
        facts = {**verdict.facts(), "teachers": len(teachers), "inputs": len(x)}
        return DistilledModel(distilled if verdict.taken else averaged, facts)

    def _usable_teachers(
        self, updates: Sequence[ClientUpdate], model: nn.Module
    ) -> list[tuple[ClientUpdate, TeacherStatistics]]:
        """Return the updates whose weight in the ensemble is known, each with its statistics."""
        if self.settings.teacher_weights != "classes":
            return [(update, TeacherStatistics(update.weight)) for update in updates]
        zeros = torch.zeros((1, *self.x.shape[1:]), dtype=self.x.dtype)
        classes = scores_of(model, zeros, self.device).shape[-1]
        reported = [(update, read_counts(update.message, classes)) for update in updates]
        usable = [
            (update, TeacherStatistics(update.weight, counts)) for update, counts in reported if counts is not None
        ]
        if len(usable) < len(updates):
            _log.warning(
                "%d of %d replies are not teachers: they do not report the number of examples of each of %d classes",
                *(len(updates) - len(usable), len(updates), classes),
            )
        return usable

    def _verdict(
        self,
        models: Sequence[Update],
        before: ModelScore | None,
        after: ModelScore | None,
        context: DistillationContext,
    ) -> Verdict:
        """Return the verdict on `models`, the averaged and the distilled one, with their scores if evaluated."""
        criterion = self.settings.criterion
        if criterion == "none":
            return Verdict(criterion, taken=True)
        if criterion == "clients":
            scores = context.ask(models) if context.ask is not None else []
            before, after = scores if scores else (None, None)
        if before is None or after is None:
            return Verdict(criterion, taken=False)
        return decide(criterion, before, after, self.settings.margin)


@dataclass(frozen=True)
class _RoundTeachers(Teachers):
    """A round's updates as teachers, decoded in turn into one module, or one for each architecture.

    The round's first model may be a further teacher, as in the temporal ensembles of FedSDD, Kwan and Song 2023,
    https://arxiv.org/abs/2312.17029.
    """

    module: Callable[[ClientUpdate], nn.Module]
    updates: list[tuple[ClientUpdate, TeacherStatistics]]
    previous: Teacher | None

    def __len__(self) -> int:
        return len(self.updates) + (self.previous is not None)

    def __iter__(self) -> Iterator[Teacher]:
        for update, statistics in self.updates:
            yield Teacher(load(self.module(update), update.decode()), statistics)
        if self.previous is not None:
            yield self.previous


def _mean_statistics(usable: Sequence[tuple[ClientUpdate, TeacherStatistics]]) -> TeacherStatistics:
    """Return the statistics of a teacher with the mean number of examples, equally many of each class."""
    mean = sum(statistics.examples for _, statistics in usable) / len(usable)
    counts = [statistics.counts for _, statistics in usable if statistics.counts is not None]
    return TeacherStatistics(mean, torch.full_like(counts[0], float(torch.stack(counts).mean())) if counts else None)


def load(model: nn.Module, weights: Update) -> nn.Module:
    """Load `weights` into `model` and return it."""
    model.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in weights.items()})
    return model
