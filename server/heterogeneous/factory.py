"""The fleet that a run's configuration describes, and what does not go together with one."""

from collections.abc import Mapping
from typing import Any

from flwr.serverapp.strategy import Strategy
from torch import nn

from fedpress.common.errors import SettingError
from fedpress.common.settings import Value, read
from fedpress.compression import Update
from fedpress.compression.model.narrow import narrow
from fedpress.protocol.groups import Group, Groups
from fedpress.server.heterogeneous.architectures import Architectures
from fedpress.server.heterogeneous.model_groups import Fleet, check_strategy
from fedpress.server.heterogeneous.widths import Widths
from fedpress.server.settings import Serving


def build_fleet(config: Mapping[str, Value], task: Any) -> Fleet | None:
    """Return it; None if all nodes have the same model."""
    groups = read(Groups, config)
    if not groups.all:
        return None
    by_name = {"": Group(""), **{group.name: group for group in groups.all}}
    made: dict[str, nn.Module] = {}

    def make(name: str) -> nn.Module:
        if name not in made:
            group = by_name[name]
            model = task.model(group.model) if group.model else task.model()
            made[name] = narrow(model, group.width, groups.scale).to(str(config["device"]))
        return made[name]

    def evaluate(name: str, weights: Update) -> Mapping[str, Any]:
        scores: Mapping[str, Any] = task.evaluate(weights, make(name))
        return scores

    kind = Widths if groups.wide else Architectures
    return kind(groups, int(config["clients"]), int(config["seed"]), make, evaluate)


def check_fleet(config: Mapping[str, Value], strategy: Strategy) -> None:
    """Raise SettingError if a run's settings do not go together with its groups."""
    groups, serving = read(Groups, config), read(Serving, config)
    if not groups.all:
        return
    check_strategy(strategy)
    if groups.slices != "nested" and (serving.shared_initial or not serving.stateless):
        raise SettingError(
            f"what a node remembers belongs to channels that {groups.slices} slices take from it: they need "
            "stateless true and shared-initial false"
        )
