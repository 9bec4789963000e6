"""The strategy that a run's settings describe."""

import math
from pathlib import Path

from fedpress.common.task import Task
from fedpress.extensions import load
from fedpress.server.aggregation.client_update import FederationLimits
from fedpress.server.extension import BuildContext, Extension
from fedpress.server.rate_control.policies import TOLERATED, build_policy
from fedpress.server.run.recorder import CHECKPOINT
from fedpress.server.strategy.compressed import Compressed
from fedpress.server.strategy.flower_strategies import build_strategy
from fedpress.settings import RunSettings
from fedpress.settings.codecs import down_codec


def build(settings: RunSettings, task: Task, folder: Path | None = None) -> Compressed:
    """Return the strategy that `settings` describe.

    Parameters
    ----------
    settings : RunSettings
        The run's settings.
    task : Task
        The run's task.
    folder : Path, optional
        The run's folder, which holds its checkpoints; None to save nothing.

    Returns
    -------
    Compressed
        The strategy, with the run's extensions.

    Raises
    ------
    SettingError
        If parts of the settings cannot be combined.
    """
    server, run = settings.server, settings.run
    context = BuildContext(task, run.seed, settings.clients, run.device, folder)
    strategy, extensions = build_strategy(settings), build_extensions(settings, context)
    broadcast, subspace = server.broadcast, settings.training.subspace
    return Compressed(
        strategy,
        up=build_policy(settings.policy, server.up, subspace, tolerated=TOLERATED[broadcast]),
        down=str(down_codec(server.down, subspace, broadcast)),
        broadcast=broadcast,
        key=server.key,
        seed=run.seed,
        shared_initial=server.shared_initial,
        stateless=server.stateless,
        exclude=server.exclude,
        limits=FederationLimits(
            min_replies=server.min_replies,
            over_selection=server.over_selection,
            max_norm=server.max_norm or math.inf,
            norm_multiple=server.norm_multiple or math.inf,
            weight_multiple=server.weight_multiple or math.inf,
            stored_bytes=server.stored_bytes,
        ),
        checkpoint=folder / CHECKPOINT if folder else None,
        resume=bool(folder) and run.resume,
        extensions=extensions,
    )


def build_extensions(settings: RunSettings, context: BuildContext) -> list[Extension]:
    """Return the extensions that are active in `settings`, in the order of the registry."""
    return [
        load(name, "server").build(section, context)
        for name, section in settings.extensions_by_name.items()
        if section.active
    ]
