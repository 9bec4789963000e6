"""The settings of a deployed run: the defaults, a TOML file's and the command line's, checked."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from fedpress.common.errors import SettingError
from fedpress.common.settings import Schema, read_file
from fedpress.server.rate_control.policies import build_policy
from fedpress.server.run.configuration import continue_run
from fedpress.server.strategy.flower_strategies import strategy_arguments
from fedpress.settings import RunSettings
from fedpress.settings.run import ONLY_SIMULATED

# Settings that may change when a run continues: devices come and go.
_FREE = {"server.timeout", "server.per-round", "server.min-replies"}
_DEFAULTS = {"deployment.nodes": 1, "run.out": "fedpress-server"}


@cache
def deployment_schema() -> Schema:
    """Return the sections of a deployed run's settings."""
    sections = RunSettings.schema().sections
    return Schema({name: cls for name, cls in sections.items() if name not in ONLY_SIMULATED})


def resolve(given: Mapping[str, Any], file: Path | None = None) -> RunSettings:
    """Return all settings of a run, or of the one that `resume` continues.

    Parameters
    ----------
    given : mapping
        Settings by their full or bare keys; they win over the file's.
    file : Path, optional
        A TOML file; its table `[task]` holds what the task alone knows.

    Raises
    ------
    SettingError
        If there is no such setting, a value is out of range, or settings do not go together.
    DataError
        If the file cannot be read.
    """
    schema = deployment_schema()
    chosen = {**(read_file(schema, file) if file else {}), **schema.flatten(given)}
    return continue_run(chosen, _resolve, _FREE)


def _resolve(chosen: Mapping[str, Any]) -> RunSettings:
    if "deployment.task" not in chosen:
        raise SettingError("task must be given: it has no default")
    values = {**_DEFAULTS, **chosen}
    nodes = values["deployment.nodes"]
    if nodes == 0:
        raise SettingError("nodes must be at least 1, got 0")
    settings = RunSettings.read({"simulation.clients": nodes, "server.per-round": nodes, **values}).completed()
    if not settings.run.out:
        raise SettingError("out must not be empty: it is the run's folder")
    if settings.server.per_round > settings.deployment.nodes:
        raise SettingError(
            f"per-round must be at most nodes, {settings.deployment.nodes}, got {settings.server.per_round}"
        )
    strategy_arguments(settings.strategy)
    build_policy(settings.policy, settings.server.up)
    return settings
