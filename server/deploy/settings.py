"""The settings of a deployed run: the defaults, a TOML file's and the command line's, checked."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from fedpress.common.errors import SettingError
from fedpress.common.settings import Schema, read, read_file
from fedpress.server.rate_control.policies import build_policy
from fedpress.server.run.configuration import continue_run
from fedpress.server.strategy.flower_strategies import build_strategy
from fedpress.settings import RunSettings
from fedpress.settings.deployment import WORKLOADS_TASK, DeploymentSettings
from fedpress.settings.run import ONLY_SIMULATED

_DEFAULTS = {
    "deployment.nodes": 1,
    "run.out": "fedpress-server",
    "server.over-selection": 1.3,
    "server.close-at": 0.8,
}
_NOT_DEPLOYED = ("simulation.clients", "simulation.engine", "simulation.workers", "simulation.start")


# A deployed run's file may have the settings of these sections in the table that its operator thinks of.
_INCLUDED = {"server": ("deployment", "run"), "task": ("simulation",)}


@cache
def deployment_schema() -> Schema:
    """Return the sections of a deployed run's settings."""
    sections = RunSettings.schema().sections
    return Schema({name: cls for name, cls in sections.items() if name not in ONLY_SIMULATED}, _INCLUDED)


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
    base, given = read_file(schema, file) if file else {}, schema.flatten(given)
    _check_given({**base, **given})
    return continue_run({**base, **given}, _resolve, adjustable=True)


def _check_given(chosen: Mapping[str, Any]) -> None:
    """Raise SettingError for a setting that a deployed run would ignore."""
    for key in chosen:
        if key in _NOT_DEPLOYED:
            raise SettingError(f"{key} must be left out: it has no meaning with real devices")
        section, _, name = key.partition(".")
        if section == "task" and any(name == known.rpartition(".")[2] for known in RunSettings.schema().declared):
            raise SettingError(f"{name} must be given without task: it is a setting of every run")
        if section == "task" and chosen.get("deployment.task") == WORKLOADS_TASK:
            raise SettingError(f"{key} must be left out: the task {WORKLOADS_TASK} takes no settings")


def _resolve(saved: Mapping[str, Any], chosen: Mapping[str, Any]) -> RunSettings:
    values = {**_DEFAULTS, **saved, **chosen}
    if "deployment.task" not in values:
        raise SettingError("task must be given: it has no default")
    if "server.per-round" not in chosen and values.get("server.per-round") == saved.get("deployment.nodes"):
        values.pop("server.per-round", None)  # it followed from nodes, which may have changed
    nodes = read(DeploymentSettings, values, "deployment.").nodes
    if nodes == 0:
        raise SettingError("nodes must be at least 1, got 0")
    settings = RunSettings.read({"simulation.clients": nodes, "server.per-round": nodes, **values}).completed()
    if not settings.run.out:
        raise SettingError("out must not be empty: it is the run's folder")
    if settings.server.per_round > settings.deployment.nodes:
        raise SettingError(
            f"per-round must be at most nodes, {settings.deployment.nodes}, got {settings.server.per_round}"
        )
    build_strategy(settings)
    build_policy(settings.policy, settings.server.up)
    return settings
