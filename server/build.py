"""The strategy that a run's configuration describes."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedpress.compression.errors import SettingError
from fedpress.compression.rng import derive
from fedpress.compression.settings import Value, read
from fedpress.server.compressed import Compressed
from fedpress.server.distillation import Distilling, EnsembleDistillation, Tuning, proxy_of
from fedpress.server.policies import build_policy
from fedpress.server.settings import Serving
from fedpress.server.strategies import build_strategy


def build(config: Mapping[str, Value], task: Any, checkpoint: Path | None = None) -> Compressed:
    """Return it; raise SettingError if parts of it do not go together."""
    serving = read(Serving, config)
    return Compressed(
        build_strategy(config),
        up=build_policy(config),
        down=serving.down,
        key=serving.key,
        seed=int(config["seed"]),
        shared_initial=serving.shared_initial,
        stateless=serving.stateless,
        exclude=tuple(filter(None, serving.exclude.split(","))),
        min_replies=serving.min_replies,
        max_norm=serving.max_norm or math.inf,
        checkpoint=checkpoint,
        resume=bool(config.get("resume")),
        distil=_teach(task, config),
        tune=_tune(task, config),
    )


def _teach(task: Any, config: Mapping[str, Value]) -> EnsembleDistillation | None:
    settings = read(Distilling, config)
    if not settings.distil:
        return None
    device, guard = str(config["device"]), _part(task, "guard")
    proxy = proxy_of(_part(task, "proxy").x, settings, device)
    return EnsembleDistillation(task.model, proxy, guard.x, guard.y, settings, device)


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
