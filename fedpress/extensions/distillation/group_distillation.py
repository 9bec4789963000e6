"""Architectures that teach each other: each is taught by the ensemble of all, Lin et al. 2020, algorithm 3.

https://arxiv.org/abs/2006.07242
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from fedpress.compression import Update
from fedpress.compression.submodels import Slice
from fedpress.extensions.distillation.distillation import DistilledModel, TeachingRound
from fedpress.server.aggregation.client_update import ClientUpdate
from fedpress.server.messaging.node_evaluation import ModelScore


class TeachFunction(Protocol):
    """Teaches an averaged model."""

    def __call__(
        self, averaged: Update, updates: Sequence[ClientUpdate], rng: np.random.Generator, teaching: TeachingRound
    ) -> DistilledModel:
        """Return the taught model, or `averaged` itself if that is better."""


def teach_groups(
    groups: Mapping[str, TeachFunction],
    places: Mapping[str, Slice],
    averaged: Update,
    updates: Sequence[ClientUpdate],
    rng: np.random.Generator,
    teaching: TeachingRound,
) -> DistilledModel:
    """Teach each group's average what the models of all groups predict together.

    Parameters
    ----------
    groups : mapping of str to TeachFunction
        Teaches each group, by its name.
    places : mapping of str to Slice
        Where each group's model lies in the server's.
    averaged : Update
        The server's model.

    Returns
    -------
    Taught
        The server's model with the groups' that got better in it, or `averaged` itself if none did.
    """
    whole, facts = averaged, dict[str, Any]()
    for name, place in places.items():
        mine = place.take(averaged)
        taught = groups[name](mine, updates, rng, _within(teaching, place, whole))
        facts[name] = taught.facts
        if taught.model is not mine:
            whole = place.put(taught.model, whole)
    return DistilledModel(whole, {"groups": facts})


def _within(teaching: TeachingRound, place: Slice, whole: Update) -> TeachingRound:
    """Return the round as one group sees it: nodes evaluate its model among the others as they are."""
    ask = teaching.ask

    def ask_of_all(models: Sequence[Update]) -> list[ModelScore]:
        return ask([place.put(model, whole) for model in models]) if ask else []

    previous = place.take(teaching.previous) if teaching.previous is not None else None
    return replace(teaching, ask=ask_of_all, previous=previous)
