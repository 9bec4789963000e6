"""The strategy that a run's configuration describes."""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from fedpress.common.errors import SettingError
from fedpress.common.rng import derive
from fedpress.common.settings import Value, read
from fedpress.server.distillation import Distilling, EnsembleDistillation, Tuning, proxy_of
from fedpress.server.heterogeneous.group_distillation import FleetDistillation
from fedpress.server.heterogeneous.model_groups import Fleet
from fedpress.server.messaging.node_evaluation import Distil
from fedpress.server.personal.settings import Personalising
from fedpress.server.rate_control.policies import build_policy
from fedpress.server.settings import Serving
from fedpress.server.sparse.mask_updates import Sparsifier
from fedpress.server.sparse.settings import Sparsifying
from fedpress.server.strategy.compressed import Compressed
from fedpress.server.strategy.flower_strategies import build_strategy


def build(
    config: Mapping[str, Value], task: Any, checkpoint: Path | None = None, fleet: Fleet | None = None
) -> Compressed:
    """Return it; raise SettingError if parts of it do not go together."""
    serving, sparsifying = read(Serving, config), read(Sparsifying, config)
    return Compressed(
        build_strategy(config),
        up=build_policy(config),
        down=serving.down,
        key=serving.key,
        seed=int(config["seed"]),
        shared_initial=serving.shared_initial,
        stateless=serving.stateless,
        catch_up=serving.catch_up,
        exclude=tuple(filter(None, serving.exclude.split(","))),
        personal=read(Personalising, config).patterns,
        min_replies=serving.min_replies,
        max_norm=serving.max_norm or math.inf,
        checkpoint=checkpoint,
        resume=bool(config.get("resume")),
        sparsify=Sparsifier(sparsifying) if sparsifying.sparsify else None,
        distil=_teach(task, config, fleet),
        tune=_tune(task, config),
        fleet=fleet,
    )


def _teach(task: Any, config: Mapping[str, Value], fleet: Fleet | None) -> Distil | None:
    settings = read(Distilling, config)
    if not settings.distil:
        return None
    device, guard = str(config["device"]), _part(task, "guard")
    proxy = proxy_of(_part(task, "proxy").x, settings, device)
    distil = EnsembleDistillation(task.model, proxy, guard.x, guard.y, settings, device)
    if fleet is None:
        return distil
    distil = replace(distil, teacher=lambda vote: fleet.make(vote.group))
    if fleet.groups.wide:  # all that teach, whatever their width, teach the whole
        return distil
    students = {name: replace(distil, make=partial(task.model, name)) for name in fleet.names}
    return FleetDistillation(students, fleet.slices(1, fleet.whole))


def _tune(task: Any, config: Mapping[str, Value]) -> Tuning | None:
    settings = read(Distilling, config)
    if not settings.distil_tune:
        return None
    device = str(config["device"])
    if settings.distil_source == "inverted":  # a round's teachers are not asked for its downlink
        settings = replace(settings, distil_source="noise")
    proxy = proxy_of(_part(task, "proxy").x, settings, device)([], derive(int(config["seed"]), "tune"))
    return Tuning(task.model, proxy, settings.distil_tune, device)


def _part(task: Any, name: str) -> Any:
    if not hasattr(task, name):
        raise SettingError(
            f"distillation takes the task's {name}, with x and y, which say what examples look like even if there are "
            f"none: {type(task).__name__} has no {name}"
        )
    return getattr(task, name)
