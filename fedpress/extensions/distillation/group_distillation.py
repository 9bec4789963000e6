"""Distillation between architectures: each is trained on the ensemble of all, Lin et al. 2020, algorithm 3.

https://arxiv.org/abs/2006.07242
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from fedpress.compression import Update
from fedpress.compression.submodels import Slice
from fedpress.extensions.distillation.distillation import DistillationContext, DistilledModel
from fedpress.server.aggregation.client_update import ClientUpdate
from fedpress.server.messaging.node_evaluation import ModelScore


class GroupDistillation(Protocol):
    """Distils a round's models into an averaged model."""

    def __call__(
        self, averaged: Update, updates: Sequence[ClientUpdate], rng: np.random.Generator, context: DistillationContext
    ) -> DistilledModel:
        """Return the distilled model, or `averaged` itself if that is better."""


def distil_groups(
    groups: Mapping[str, GroupDistillation],
    places: Mapping[str, Slice],
    averaged: Update,
    updates: Sequence[ClientUpdate],
    rng: np.random.Generator,
    context: DistillationContext,
) -> DistilledModel:
    """Train each group's average on the ensemble of all groups' models.

    Parameters
    ----------
    groups : mapping of str to GroupDistillation
        Each group's distillation, by the group's name.
    places : mapping of str to Slice
        The part of the server's model that each group has.
    averaged : Update
        The server's model.

    Returns
    -------
    DistilledModel
        The server's model with the accepted models of the groups, or `averaged` itself if none was accepted.
    """
    whole, facts = averaged, dict[str, Any]()
    for name, place in places.items():
        group_average = place.take(averaged)
        distilled = groups[name](group_average, updates, rng, _within(context, place, whole))
        facts[name] = distilled.facts
        if distilled.model is not group_average:
            whole = place.put(distilled.model, whole)
    return DistilledModel(whole, {"groups": facts})


def _within(context: DistillationContext, place: Slice, whole: Update) -> DistillationContext:
    """Return the round for one group: nodes evaluate its model within the server's `whole` model."""
    ask = context.ask

    def ask_whole(models: Sequence[Update]) -> list[ModelScore]:
        return ask([place.put(model, whole) for model in models]) if ask else []

    previous = place.take(context.previous) if context.previous is not None else None
    return replace(context, ask=ask_whole, previous=previous)
