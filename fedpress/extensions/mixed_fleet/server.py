"""Groups of nodes with different models, on the server."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from fedpress.common.errors import SettingError
from fedpress.compression import Update
from fedpress.compression.model.narrow import narrow
from fedpress.extensions.mixed_fleet.architectures import Architectures
from fedpress.extensions.mixed_fleet.node_groups import NodeGroups
from fedpress.extensions.mixed_fleet.settings import GroupSettings, MixedFleetSettings
from fedpress.extensions.mixed_fleet.widths import Widths
from fedpress.server.aggregation.aggregate import STREAMING
from fedpress.server.downlink.models import ModelGroups
from fedpress.server.extension import BuildContext, Extension, FederationTerms, Property
from fedpress.server.strategy.round_record import Round

Evaluate = Callable[[str, Update], Mapping[str, Any]]


class MixedFleet(Extension):
    """Gives each group of nodes its part of the server's model.

    Parameters
    ----------
    settings : MixedFleetSettings
        The groups.
    groups : NodeGroups
        The groups' parts of the server's model.
    evaluate : Evaluate
        Returns the scores of a group's model on the test set, given the group's name and the model.

    Examples
    --------
    >>> settings = MixedFleetSettings((GroupSettings(width=0.5), GroupSettings(width=1.0)))
    >>> groups = Widths(settings, 2, 0, lambda group: nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)))
    >>> MixedFleet(settings, groups, lambda group, model: {}).model_groups().names
    ('0.5', '1')
    """

    name = "mixed_fleet"
    settings: MixedFleetSettings
    needs = frozenset({Property.ONE_MODEL})  # only one extension can divide the nodes into groups
    removes = frozenset({Property.ONE_MODEL})

    def __init__(self, settings: MixedFleetSettings, groups: NodeGroups, evaluate: Evaluate) -> None:
        self.settings = settings
        self._groups = groups
        self._evaluate = evaluate

    def conflicts(self, federation: FederationTerms) -> None:
        if type(federation.strategy) not in STREAMING:  # others need updates of the whole model
            names = ", ".join(kind.__name__ for kind in STREAMING)
            raise SettingError(f"strategy must be one of {names} with groups, got {type(federation.strategy).__name__}")

    def begin(self, initial: Update) -> Update:
        return self._groups.whole

    def model_groups(self) -> ModelGroups:
        return self._groups

    def model_scores(self, done: Round) -> Mapping[str, Any]:
        scores = {name: value for name, value in (done.evaluation or {}).items() if isinstance(value, int | float)}
        return {
            "groups": {
                name: scores if model is done.model else self._evaluate(name, model)
                for name, model in done.groups.items()
            }
        }

    def dump_state(self) -> Mapping[str, Any]:
        return self._groups.dump_state()

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._groups.load_state(state)


def build(settings: MixedFleetSettings, context: BuildContext) -> MixedFleet:
    """Return the extension that `settings` describe."""
    by_name = {"": GroupSettings(), **{group.name: group for group in settings.groups}}
    modules: dict[str, nn.Module] = {}

    def module(name: str) -> nn.Module:
        """Return the module of a group, shared by all callers; of the whole model for an empty name."""
        if name not in modules:
            group = by_name[name]
            model = context.task.model(group.model) if group.model else context.task.model()
            modules[name] = narrow(model, group.width, settings.scale).to(context.device)
        return modules[name]

    def evaluate(name: str, weights: Update) -> Mapping[str, Any]:
        scores: Mapping[str, Any] = context.task.evaluate(weights, module(name))
        return scores

    kind = Widths if settings.by_width else Architectures
    return MixedFleet(settings, kind(settings, context.clients, context.seed, module), evaluate)
