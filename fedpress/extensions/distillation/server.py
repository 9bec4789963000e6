"""Distillation on the server: a round's models are distilled into their average, and deltas are tuned."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from fedpress.common.errors import SettingError
from fedpress.common.rng import derive
from fedpress.common.task import ServerDataTask
from fedpress.compression import Update
from fedpress.extensions.distillation.delta_tuning import DeltaTuning
from fedpress.extensions.distillation.distillation import DistillationContext, DistilledModel, EnsembleDistillation
from fedpress.extensions.distillation.group_distillation import distil_groups
from fedpress.extensions.distillation.proxies import proxy_of
from fedpress.extensions.distillation.settings import GUARD, HERE, PROXY, DistillationSettings
from fedpress.server.downlink.deltas import DeltaContext
from fedpress.server.extension import BuildContext, Extension, Property, RoundContext
from fedpress.server.strategy.round_record import Round


class Distillation(Extension):
    """Replaces the averaged model by a distilled one if that is better, and tunes the targets of deltas.

    Parameters
    ----------
    settings : DistillationSettings
        Settings of the distillation.
    ensemble : EnsembleDistillation | None
        Distils models into the averaged one; None to leave it as it is.
    tuning : DeltaTuning | None
        Tunes deltas; None if they approximate the exact model.

    Examples
    --------
    >>> sorted(need.name for need in Distillation(DistillationSettings()).needs)
    ['FREE_WEIGHTS', 'WHOLE_MODEL']
    """

    name = "distillation"
    settings: DistillationSettings

    def __init__(
        self,
        settings: DistillationSettings,
        ensemble: EnsembleDistillation | None = None,
        tuning: DeltaTuning | None = None,
    ) -> None:
        self.settings = settings
        self._ensemble = ensemble
        self._tuning = tuning
        self._facts: dict[str, Any] = {}  # of this round

    @property
    def needs(self) -> frozenset[Property]:
        needs = {Property.WHOLE_MODEL, Property.FREE_WEIGHTS}
        if self._ensemble is not None:
            needs |= {Property.PLAIN_UPDATES}
        if self._tuning is not None:
            needs |= {Property.ONE_MODEL, Property.LOSSY_DELTAS}
        return frozenset(needs)

    def after_aggregation(self, model: Update, context: RoundContext) -> Update:
        if self._ensemble is None:
            return model
        distilled = self._distil(self._ensemble, model, context) if context.updates else DistilledModel(model)
        self._facts = {"distilled": distilled.model is not model, "distillation": distilled.facts}
        return distilled.model

    def aim_delta(self, aim: Update, context: DeltaContext) -> Update:
        if self._tuning is None:
            return aim
        return self._tuning(aim, context.code, derive(context.seed, "tune", context.round))

    def round_facts(self, done: Round) -> Mapping[str, Any]:
        return self._facts

    def _distil(self, ensemble: EnsembleDistillation, model: Update, context: RoundContext) -> DistilledModel:
        rng = derive(context.seed, "distil", context.number)
        terms = DistillationContext(context.ask, context.previous if context.number > 1 else None)
        groups = context.models.groups
        if groups is None:
            return ensemble(model, context.updates, rng, terms)
        ensemble = replace(ensemble, teacher=lambda update: groups.module(update.base.group))
        if not groups.disjoint:  # one distillation of the whole model, with the teachers of all groups
            return ensemble(model, context.updates, rng, terms)
        students = {name: replace(ensemble, make=partial(ensemble.make, name)) for name in groups.names}
        return distil_groups(students, context.models.places, model, context.updates, rng, terms)


def build(settings: DistillationSettings, context: BuildContext) -> Distillation:
    """Return the extension that `settings` describe.

    Raises
    ------
    SettingError
        If the task has no examples for distillation.
    """
    task, device = context.task, context.device
    if not isinstance(task, ServerDataTask):
        raise SettingError(
            f"distillation needs a task with held_back and unlabelled: {type(task).__name__} does not have both"
        )
    here = settings.source in HERE
    x = task.held_back[PROXY].x if here else task.unlabelled(settings.source, settings.proxy_examples)
    ensemble = tuning = None
    if settings.enabled:
        proxy, guard = proxy_of(x, settings, device), task.held_back[GUARD]
        ensemble = EnsembleDistillation(task.model, proxy, guard.x, guard.y, settings, device)
    if settings.tune_steps:
        # A round's teachers are not available for its downlink.
        source = "noise" if settings.source == "inverted" else settings.source
        make_proxy = proxy_of(x, replace(settings, source=source), device)
        tuning = DeltaTuning(task.model, make_proxy([], derive(context.seed, "tune")), settings.tune_steps, device)
    return Distillation(settings, ensemble, tuning)
