"""The strategy that a run's configuration describes."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedpress.common.settings import Value, read
from fedpress.extensions import EXTENSIONS, load, settings_class
from fedpress.server.aggregation.client_update import FederationLimits
from fedpress.server.checkpointing.recovery import CheckpointSettings
from fedpress.server.extension import BuildContext, Extension
from fedpress.server.rate_control.policies import build_policy
from fedpress.server.run.recorder import CHECKPOINT
from fedpress.server.settings import Serving
from fedpress.server.strategy.compressed import Compressed
from fedpress.server.strategy.flower_strategies import build_strategy


def build(config: Mapping[str, Value], task: Any, folder: Path | None = None) -> Compressed:
    """Return the strategy that `config` describes; raise SettingError if parts of it cannot be combined.

    Parameters
    ----------
    config : the run's configuration
    task : the run's task
    folder : the run's folder, which holds its checkpoints; None for a run that keeps nothing
    """
    serving, seed = read(Serving, config), int(config["seed"])
    context = BuildContext(task, seed, int(config["clients"]), str(config["device"]), folder)
    return Compressed(
        build_strategy(config),
        up=build_policy(config),
        down=serving.down,
        key=serving.key,
        seed=seed,
        shared_initial=serving.shared_initial,
        stateless=serving.stateless,
        exclude=tuple(filter(None, serving.exclude.split(","))),
        limits=FederationLimits(
            min_replies=serving.min_replies,
            max_norm=serving.max_norm or math.inf,
            max_examples=serving.max_examples,
        ),
        checkpoint=CheckpointSettings(folder / CHECKPOINT, resume=bool(config.get("resume"))) if folder else None,
        extensions=build_extensions(config, context),
    )


def build_extensions(config: Mapping[str, Value], context: BuildContext) -> list[Extension]:
    """Return the extensions that `config` switches on, in the order of the registry."""
    built = []
    for name in EXTENSIONS:
        settings = read(settings_class(name), config)
        if settings.enabled:
            built.append(load(name, "server").build(settings, context))
    return built
