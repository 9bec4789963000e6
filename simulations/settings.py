"""A run's configuration: the defaults, the workload's, a TOML file's, the command line's; checked at once."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path

from fedpress.client.training.settings import Training
from fedpress.common.errors import SettingError, unknown
from fedpress.common.settings import Value, key_of, read, require
from fedpress.compression.model.channel_axes import channel_axes_of
from fedpress.extensions import EXTENSIONS, settings_class
from fedpress.extensions.distillation.settings import DistillationSettings
from fedpress.extensions.mixed_fleet.conflicts import check_federation
from fedpress.extensions.mixed_fleet.settings import MixedFleetSettings
from fedpress.extensions.personal_layers.settings import PersonalLayersSettings
from fedpress.extensions.sparsity.settings import SparsitySettings
from fedpress.server.rate_control.policies import PREFIX as POLICY
from fedpress.server.rate_control.policies import build_policy
from fedpress.server.run.configuration import read_tables
from fedpress.server.settings import Serving
from fedpress.server.strategy.flower_strategies import PREFIX, build_strategy
from fedpress.simulations.network.devices import find_fleet
from fedpress.simulations.network.settings import Network
from fedpress.simulations.workloads import find
from fedpress.simulations.workloads.partitions import KINDS
from fedpress.simulations.workloads.task import Workload

ENGINES = ("inprocess", "ray")
TASK = "fedpress.simulations.workloads:task"


@dataclass(frozen=True)
class Simulated:
    """What is simulated, and on what."""

    clients: int  # virtual clients
    workload: str = "digits"  # a name, or package.module:object
    model: str = ""  # one of the workload's; empty for its first
    start: str = ""  # folder of the model to begin with, a run's or a smaller one; empty for fresh weights
    partition: str = "iid"  # iid, dirichlet, shards or natural
    alpha: float = 0.5  # dirichlet's: the smaller, the more the nodes differ
    shards_per_client: int = 2  # of the partition shards
    holdout: float = 0.0  # share of its examples that a node keeps for evaluation
    dropout: float = 0.0  # of models that have it
    data: str = ""  # folder in which the workload's files are looked for
    fetch: bool = False  # fetch the workload's data if it is not here
    seed: int = 0  # of everything random
    engine: str = "inprocess"  # inprocess or ray
    workers: int = 0  # worker processes; 0 for as many as cores
    device: str = "cpu"  # cpu, cuda or cuda:N
    out: str = ""  # the run's folder
    resume: bool = False  # go on with the run in that folder

    def __post_init__(self) -> None:
        require(self.clients >= 1, "clients", "at least 1", self.clients)
        require(self.workers >= 0, "workers", "at least 0", self.workers)
        require(self.shards_per_client >= 1, "shards_per_client", "at least 1", self.shards_per_client)
        require(self.alpha > 0, "alpha", "above 0", self.alpha)
        require(0 <= self.holdout < 1, "holdout", "in [0, 1)", self.holdout)
        require(0 <= self.dropout < 1, "dropout", "in [0, 1)", self.dropout)
        require(0 <= self.seed < 2**62, "seed", "in [0, 2**62)", self.seed)
        if self.partition not in KINDS:
            raise SettingError(unknown("partition", self.partition, KINDS))
        if self.engine not in ENGINES:
            raise SettingError(unknown("engine", self.engine, ENGINES))
        check_device(self.device)


SECTIONS: dict[str, type] = {
    "simulation": Simulated,
    "server": Serving,
    "training": Training,
    **{name: settings_class(name) for name in EXTENSIONS},
    "network": Network,
}


def keys() -> dict[str, Value | None]:
    """Return every setting's name and default, None where there is none; strategies' arguments are not among them."""
    return {
        key_of(field.name): None if field.default is MISSING else field.default
        for section in SECTIONS.values()
        for field in fields(section)
    }


def resolve(given: Mapping[str, Value], file: Path | None = None) -> dict[str, Value]:
    """Return the whole configuration of a run, as Flower takes it.

    Parameters
    ----------
    given : what the command line says
    file : a TOML file; its tables may be named as the sections are, `[strategy]` holds the strategy's arguments

    Raises
    ------
    SettingError
        If anything in it cannot work.
    DataError
        If the file cannot be read.
    """
    chosen = {**(read_tables(file, SECTIONS) if file else {}), **given}
    workload = find(str(chosen.get("workload", Simulated.workload)))
    config = {key: value for key, value in keys().items() if value is not None}
    config.update(workload.defaults)
    # Who names alpha means the partition that has one.
    if "alpha" in chosen and "partition" not in chosen:
        config["partition"] = "dirichlet"
    # A workload's momentum is part of the optimiser that suits it.
    if chosen.get("optimizer", "sgd") != "sgd":
        config |= {"momentum": 0.0, "nesterov": False}
    for key, value in chosen.items():
        if key not in keys() and not key.startswith((PREFIX, POLICY)):
            raise SettingError(unknown("setting", key, keys()))
        config[key] = value
    config["task"] = TASK
    groups = read(MixedFleetSettings, config)
    if groups.all and not groups.wide:  # the first one's is the model of the run
        first = groups.all[0].name
        if config["model"] not in ("", first):
            raise SettingError(f"the run's model is that of the first group, {first!r}: got model {config['model']!r}")
        config["model"] = first
    _check(config, workload)
    return config


def _check(config: Mapping[str, Value], workload: Workload) -> None:
    """Raise SettingError if settings do not go together."""
    simulated, serving = read(Simulated, config), read(Serving, config)
    read(Training, config)
    distilling, personalising = read(DistillationSettings, config), read(PersonalLayersSettings, config)
    read(SparsitySettings, config).check(serving.rounds)
    network = read(Network, config)
    groups = read(MixedFleetSettings, config)
    strategy = build_strategy(config)
    check_federation(groups, strategy, stateless=serving.stateless, shared_initial=serving.shared_initial)
    build_policy(config)
    if simulated.model and simulated.model not in workload.models:
        raise SettingError(unknown("model", simulated.model, workload.models))
    _check_groups(groups, simulated, workload)
    if serving.per_round > simulated.clients:
        raise SettingError(f"per-round is at most the number of clients, {simulated.clients}, got {serving.per_round}")
    if simulated.engine == "ray" and (network.deadline or find_fleet(network.fleet).dropouts):
        raise SettingError("deadlines and dropouts are simulated in process: engine is inprocess, got 'ray'")
    judging = {
        "fraction-evaluate": serving.fraction_evaluate,
        "finetune-epochs": personalising.finetune_epochs,
        "distil-criterion clients": distilling.distil and distilling.distil_criterion == "clients",
    }
    if not simulated.holdout and (asked := [key for key, judged in judging.items() if judged]):
        raise SettingError(f"nodes evaluate on what they hold out: with {asked[0]}, holdout is above 0")


def _check_groups(groups: MixedFleetSettings, simulated: Simulated, workload: Workload) -> None:
    for group in groups.all:
        if not group.share:
            raise SettingError(f"virtual nodes are dealt out by shares, {group.name}:0.5, got {group.name!r}")
        if group.model and group.model not in workload.models:
            raise SettingError(unknown("model", group.model, workload.models))
    if groups.wide:
        name = simulated.model or next(iter(workload.models))
        channel_axes_of(workload.models[name](simulated.dropout))  # says so if it cannot be narrowed


def check_device(name: str) -> None:
    """Raise SettingError if torch knows no device `name` here."""
    if name == "cpu":
        return
    import torch

    kind, _, number = name.partition(":")
    if kind != "cuda" or (number and not number.isdecimal()):
        raise SettingError(f"device is cpu, cuda or cuda:N, got {name!r}")
    if int(number or 0) >= torch.cuda.device_count():
        raise SettingError(f"device {name!r} is not here: this machine has {torch.cuda.device_count()} GPUs")
