"""Several extensions as one: each is given what the one before it returned."""

from collections.abc import Mapping, Sequence
from typing import Any

from fedpress.compression import Update
from fedpress.server.aggregation.aggregate import cast
from fedpress.server.downlink.deltas import DeltaContext
from fedpress.server.downlink.models import ModelGroups
from fedpress.server.extension import Extension, FinalContext, RoundContext
from fedpress.server.strategy.round_record import Round


class ExtensionChain:
    """The extensions of a federation, with different names, run in the order in which they are listed.

    Those that prune weights are last: another one could replace the mark of a pruned weight by another value.
    """

    def __init__(self, extensions: Sequence[Extension]) -> None:
        self.extensions = tuple(sorted(extensions, key=lambda extension: extension.prunes))

    @property
    def prunes(self) -> bool:
        """Whether any of them prunes weights."""
        return any(extension.prunes for extension in self.extensions)

    def begin(self, initial: Update) -> Update:
        """Return the part of the initial model that server and nodes exchange."""
        for extension in self.extensions:
            initial = extension.begin(initial)
        return initial

    def complete(self, model: Update) -> Update:
        """Return the whole model that an exchanged one stands for."""
        for extension in reversed(self.extensions):
            model = extension.complete(model)
        return model

    def model_groups(self) -> ModelGroups | None:
        """Return the groups of nodes with different models; None if all nodes have the same one."""
        found = [groups for extension in self.extensions if (groups := extension.model_groups()) is not None]
        return found[0] if found else None

    def after_aggregation(self, model: Update, context: RoundContext) -> Update:
        """Return the model that takes the place of the aggregated one, in its dtypes."""
        for extension in self.extensions:
            model = cast(extension.after_aggregation(model, context), context.models.layout)
        return model

    def aim_delta(self, aim: Update, context: DeltaContext) -> Update:
        """Return the model that a delta is aimed at."""
        for extension in self.extensions:
            aim = extension.aim_delta(aim, context)
        return aim

    def round_facts(self, done: Round) -> dict[str, Any]:
        """Return the entries that all of them add to the round's row."""
        return {key: fact for extension in self.extensions for key, fact in extension.round_facts(done).items()}

    def model_scores(self, done: Round) -> dict[str, Any]:
        """Return the scores of the round's model that they add to its row and to the final scores."""
        return {key: score for extension in self.extensions for key, score in extension.model_scores(done).items()}

    def after_last_round(self, context: FinalContext) -> dict[str, Any]:
        """Return the entries that all of them add to the final scores after the last round."""
        return {key: fact for extension in self.extensions for key, fact in extension.after_last_round(context).items()}

    def dump_state(self) -> dict[str, Mapping[str, Any]]:
        """Return the state of each, by name."""
        return {extension.name: extension.dump_state() for extension in self.extensions}

    def load_state(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """Restore the state that `dump_state` returned."""
        for extension in self.extensions:
            extension.load_state(state[extension.name])
