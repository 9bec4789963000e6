"""The settings of a simulated run: the defaults, the workload's, a TOML file's and the command line's, checked."""

from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from fedpress.common.errors import SettingError
from fedpress.common.settings import Schema, read_file
from fedpress.server.rate_control.policies import build_policy
from fedpress.server.strategy.flower_strategies import build_strategy
from fedpress.settings import RunSettings
from fedpress.settings.extension import require_holdout
from fedpress.settings.run import ONLY_DEPLOYED
from fedpress.settings.simulation import SimulationSettings
from fedpress.simulations.network.devices import find_devices
from fedpress.simulations.network.links import find_link
from fedpress.simulations.workloads import find
from fedpress.simulations.workloads.task import Workload, constructors

_OF_PARTITIONS = {"simulation.alpha": "dirichlet", "simulation.shards-per-client": "shards"}  # each implies its own


@cache
def simulation_schema() -> Schema:
    """Return the sections of a simulated run's settings."""
    sections = RunSettings.schema().sections
    return Schema({name: cls for name, cls in sections.items() if name not in ONLY_DEPLOYED})


def resolve(given: Mapping[str, Any], file: Path | None = None) -> RunSettings:
    """Return all settings of a run.

    Parameters
    ----------
    given : mapping
        Settings by their full or bare keys, or in tables by section; they win over the file's.
    file : Path, optional
        A TOML file, whose settings win over the workload's.

    Raises
    ------
    SettingError
        If there is no such setting, a value is out of range, or settings conflict.
    """
    schema = simulation_schema()
    chosen = schema.absolute(override(read_file(schema, file) if file else {}, schema.flatten(given)))
    workload = find(str(chosen.get("simulation.workload", SimulationSettings.workload)))
    defaults = schema.flatten(workload.defaults)
    for key, partition in _OF_PARTITIONS.items():
        if key in chosen:
            defaults["simulation.partition"] = partition
    if chosen.get("training.optimizer", "sgd") != "sgd":  # a workload's momentum belongs to its optimizer
        defaults |= {"training.momentum": 0.0, "training.nesterov": False}
    settings = RunSettings.read(override(defaults, chosen))
    if "server.per-round" not in chosen:  # a workload's default must not exceed the clients that were asked for
        settings = settings.change("server", per_round=min(settings.server.per_round, settings.simulation.clients))
    settings = settings.completed()
    changed = {key for key in _OF_PARTITIONS if key in chosen and chosen[key] != schema.declared[key].default}
    check_partition(settings, changed)
    _check(settings, workload)
    return settings


def override(base: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by their full keys: those `given`, and the others of `base`.

    Without the parameter of a partition that another one replaces.
    """
    partition = given.get("simulation.partition")
    kept = {key: value for key, value in base.items() if partition in (None, _OF_PARTITIONS.get(key, partition))}
    return {**kept, **given}


def check_partition(settings: RunSettings, given: Collection[str]) -> None:
    """Raise SettingError if one of the `given` settings is the parameter of another partition than the run's."""
    for key, partition in _OF_PARTITIONS.items():
        if key in given and settings.simulation.partition != partition:
            name = key.rpartition(".")[2]
            raise SettingError(f"partition must be {partition} with {name}, got {settings.simulation.partition!r}")


def _check(settings: RunSettings, workload: Workload) -> None:
    """Raise SettingError if settings conflict."""
    simulation, server = settings.simulation, settings.server
    check_device(settings.run.device)
    build_strategy(settings)
    build_policy(settings.policy, server.up)
    find_link(settings.network.link)
    devices = find_devices(settings.network.devices)
    constructors(workload, simulation)
    if server.per_round > simulation.clients:
        raise SettingError(f"per-round must be at most clients, {simulation.clients}, got {server.per_round}")
    if simulation.engine == "ray" and (settings.network.deadline or devices.dropouts):
        raise SettingError("engine must be inprocess for deadlines and dropouts, got 'ray'")
    for name in ("start", "data"):
        path = getattr(simulation, name)
        if path and not Path(path).is_dir() and not (name == "data" and simulation.fetch):
            raise SettingError(f"{name} must be a folder that exists, got {path!r}")
    if server.fraction_evaluate:
        require_holdout(settings, "fraction-evaluate")


def check_device(name: str) -> None:
    """Raise SettingError if torch has no device `name` on this machine."""
    if name == "cpu":
        return
    import torch

    kind, _, number = name.partition(":")
    if kind != "cuda" or (number and not number.isdecimal()):
        raise SettingError(f"device must be cpu, cuda or cuda:N, got {name!r}")
    if int(number or 0) >= torch.cuda.device_count():
        raise SettingError(f"device must be on this machine, which has {torch.cuda.device_count()} GPUs, got {name!r}")
