"""The fleet that a run's configuration describes, and what does not go together with one."""

from collections.abc import Mapping
from typing import Any

from flwr.serverapp.strategy import Strategy
from torch import nn

from fedpress.compression import Update
from fedpress.compression.errors import SettingError
from fedpress.compression.groups import SCORES, Group, Groups
from fedpress.compression.model.widths import narrow
from fedpress.compression.settings import Value, read
from fedpress.server.distillation import Distilling
from fedpress.server.fleet.architectures import Architectures
from fedpress.server.fleet.consensus import Student
from fedpress.server.fleet.fleet import Fleet, check_strategy
from fedpress.server.fleet.widths import Widths
from fedpress.server.personal.settings import Personalising
from fedpress.server.settings import Serving
from fedpress.server.sparse.settings import Sparsifying


def build_fleet(config: Mapping[str, Value], task: Any) -> Fleet | None:
    """Return it; None if all nodes exchange the same tensors."""
    groups = read(Groups, config)
    if not groups.all or groups.share == SCORES:
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


def build_student(config: Mapping[str, Value], task: Any) -> Student | None:
    """Return who learns from what nodes say; None if they send weights."""
    if read(Groups, config).share != SCORES:
        return None
    return Student(task, read(Distilling, config), int(config["seed"]), str(config["device"]))


def check_fleet(config: Mapping[str, Value], strategy: Strategy) -> None:
    """Raise SettingError if a run's settings do not go together with its groups, or with sharing scores."""
    groups, serving = read(Groups, config), read(Serving, config)
    if groups.share == SCORES:
        _check_scores(config, serving)
    elif groups.all:
        check_strategy(strategy)
        if groups.slices != "nested" and (serving.shared_initial or not serving.stateless):
            raise SettingError(
                f"what a node remembers belongs to channels that {groups.slices} slices take from it: they need "
                "stateless true and shared-initial false"
            )


def _check_scores(config: Mapping[str, Value], serving: Serving) -> None:
    distilling, personalising = read(Distilling, config), read(Personalising, config)
    if serving.stateless:
        raise SettingError("nodes that share scores keep models of their own: stateless is false, got true")
    others = {
        "distil": distilling.distil,
        "distil-tune": distilling.distil_tune,
        "personal": personalising.personal,
        "finetune-epochs": personalising.finetune_epochs,
        "sparsify": read(Sparsifying, config).sparsify,
        "exclude": serving.exclude,
    }
    if wanted := [key for key, value in others.items() if value]:
        raise SettingError(f"{wanted[0]} works on weights, and where nodes share scores none travel: leave it out")
    if distilling.distil_source in ("noise", "inverted"):
        raise SettingError(
            f"scores are of inputs that all have: distil-source {distilling.distil_source!r} makes them up, each time "
            "others; name held-out or a data set"
        )
