"""The strategy that a run's settings describe."""

import math
from collections.abc import Sequence
from pathlib import Path

from flwr.serverapp.strategy import FedAdagrad, FedAdam, FedAvgM, FedYogi, Strategy

from fedpress.common.task import Task
from fedpress.extensions import load
from fedpress.server.aggregation import privacy
from fedpress.server.aggregation.client_update import FederationLimits
from fedpress.server.aggregation.consistency import innermost
from fedpress.server.extension import BuildContext, Extension
from fedpress.server.rate_control.policies import TOLERATED, build_policy
from fedpress.server.run.recorder import CHECKPOINT
from fedpress.server.strategy.compressed import Compressed
from fedpress.server.strategy.flower_strategies import build_strategy
from fedpress.settings import RunSettings
from fedpress.settings.codecs import AUTO, DELTAS, STEPS, down_codec


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
    broadcast, subspace = _broadcast(settings, strategy, extensions), settings.training.subspace
    tolerated = TOLERATED[broadcast]
    return Compressed(
        strategy,
        up=build_policy(settings.policy, server.up, subspace, tolerated=tolerated),
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


def _broadcast(settings: RunSettings, strategy: Strategy, extensions: Sequence[Extension]) -> str:
    """Return what nodes are sent, steps or deltas.

    Steps are chosen where half of the nodes or more take part in a round, since a node is sent all that it missed; and
    where the server's model moves by means of updates alone: momentum, adaptive steps and private noise would make
    much of their error.
    """
    server = settings.server
    if server.broadcast != AUTO:
        return server.broadcast
    often = 2 * server.per_round >= settings.clients
    plain = server.down == AUTO and not (server.stateless or extensions or privacy.is_private(strategy))
    moves = isinstance(innermost(strategy), FedAvgM | FedAdagrad | FedAdam | FedYogi)
    return STEPS if often and plain and not moves else DELTAS


def build_extensions(settings: RunSettings, context: BuildContext) -> list[Extension]:
    """Return the extensions that are active in `settings`, in the order of the registry."""
    return [
        load(name, "server").build(section, context)
        for name, section in settings.extensions_by_name.items()
        if section.active
    ]
