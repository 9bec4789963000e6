"""Architectures that teach each other: each is taught by the ensemble of all, Lin et al. 2020, algorithm 3.

https://arxiv.org/abs/2006.07242
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fedpress.compression import Update
from fedpress.compression.submodels import Slice
from fedpress.server.aggregation.client_update import Vote
from fedpress.server.distillation import EnsembleDistillation
from fedpress.server.messaging.node_evaluation import Facts, Part, Score


@dataclass(frozen=True)
class FleetDistillation:
    """Teaches each group's average what the models of all groups say together, under the guard, each for itself."""

    groups: Mapping[str, EnsembleDistillation]
    slices: Mapping[str, Slice]  # where each group's model lies in the server's
    round: Part | None = None

    def part(self, part: Part) -> "FleetDistillation":
        """Return the same as it takes part in a round."""
        return replace(self, round=part)

    def __call__(self, averaged: Update, votes: Sequence[Vote], rng: np.random.Generator) -> Update:
        """Return the server's model with the groups' that got better in it, or `averaged` itself if none did."""
        whole, facts = averaged, dict[str, Facts]()
        for name, place in self.slices.items():
            mine = place.take(averaged)
            taught = self._of(name, place, whole, facts)(mine, votes, rng)
            if taught is not mine:
                whole = place.put(taught, whole)
        if self.round is not None:
            self.round.note({"groups": facts})
        return whole

    def _of(self, name: str, place: Slice, whole: Update, facts: dict[str, Facts]) -> EnsembleDistillation:
        """Return the distillation of a group; nodes that it asks judge its model among the others as they stand."""
        if self.round is None:
            return self.groups[name]
        ask = self.round.ask

        began = self.round.began and place.take(self.round.began)

        def ask_of_all(models: Sequence[Update]) -> list[Score]:
            return ask([place.put(model, whole) for model in models])

        return self.groups[name].part(Part(ask_of_all, facts.setdefault(name, {}).update, began))
