"""The strategy that a run's configuration describes."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedpress.compression.settings import Value, read
from fedpress.server.compressed import Compressed
from fedpress.server.distillation import Distilling, EnsembleDistillation
from fedpress.server.personal.settings import Personalising
from fedpress.server.policies import build_policy
from fedpress.server.settings import Serving
from fedpress.server.sparse.masks import Sparsifier
from fedpress.server.sparse.settings import Sparsifying
from fedpress.server.strategies import build_strategy


def build(config: Mapping[str, Value], task: Any, checkpoint: Path | None = None) -> Compressed:
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
        exclude=tuple(filter(None, serving.exclude.split(","))),
        personal=read(Personalising, config).patterns,
        min_replies=serving.min_replies,
        max_norm=serving.max_norm or math.inf,
        checkpoint=checkpoint,
        resume=bool(config.get("resume")),
        sparsify=Sparsifier(sparsifying) if sparsifying.sparsify else None,
        distil=_teach(task, config),
    )


def _teach(task: Any, config: Mapping[str, Value]) -> EnsembleDistillation | None:
    settings = read(Distilling, config)
    if not settings.distil:
        return None
    device = str(config["device"])
    return EnsembleDistillation(task.model, task.proxy.x, task.guard.x, task.guard.y, settings, device)
