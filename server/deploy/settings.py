"""A deployed run's configuration: the defaults, a TOML file's, the command line's; checked at once."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path

from fedpress.common.errors import SettingError, unknown
from fedpress.common.settings import Value, key_of, read, require
from fedpress.extensions import EXTENSIONS, settings_class
from fedpress.extensions.distillation.settings import DistillationSettings
from fedpress.extensions.mixed_fleet.conflicts import check_federation
from fedpress.extensions.mixed_fleet.settings import MixedFleetSettings
from fedpress.extensions.personal_layers.settings import PersonalLayersSettings
from fedpress.extensions.sparsity.settings import SparsitySettings
from fedpress.server.deploy.fleet_proxy import LEAST_BODY
from fedpress.server.rate_control.policies import PREFIX as POLICY
from fedpress.server.rate_control.policies import build_policy
from fedpress.server.run.configuration import go_on, read_tables
from fedpress.server.settings import Serving
from fedpress.server.strategy.flower_strategies import PREFIX as STRATEGY
from fedpress.server.strategy.flower_strategies import build_strategy

TASK = "task."  # of the keys that are the task's own: it is given them without
_FREE = {"resume", "out", "nodes", "max-body", "timeout", "per-round", "min-replies"}  # of a run that goes on


@dataclass(frozen=True)
class Deployed:
    """A run on real devices."""

    task: str  # package.module:object that both ends have installed: data, model and test set
    nodes: int = 1  # enrolled nodes that must be there before round 1
    app: str = "fedpress.server.app:app"  # the ServerApp
    client_app: str = "fedpress.client.app:app"  # the ClientApp, for nodes that take it from the server
    seed: int = 0  # of everything random
    device: str = "cpu"  # cpu, cuda or cuda:N, on both ends
    max_body: int = LEAST_BODY  # bytes of a request at most; flwr cuts what is longer into chunks of 5 MiB
    out: str = "fedpress-server"  # the run's folder
    resume: bool = False  # go on with the run in that folder

    def __post_init__(self) -> None:
        require(self.nodes >= 1, "nodes", "at least 1", self.nodes)
        require(0 <= self.seed < 2**62, "seed", "in [0, 2**62)", self.seed)
        require(self.max_body >= LEAST_BODY, "max_body", f"at least {LEAST_BODY}, a chunk of flwr's", self.max_body)
        require(bool(self.out), "out", "the run's folder", self.out)
        for name in ("task", "app", "client_app"):
            module, colon, thing = getattr(self, name).partition(":")
            require(bool(module and colon and thing), name, "package.module:object", repr(getattr(self, name)))


def sections(training: type) -> dict[str, tuple[type, ...]]:
    """Return the settings by the table that they stand in; `training` are those of the nodes."""
    return {
        "server": (Deployed, Serving),
        "training": (training,),
        **{name: (settings_class(name),) for name in EXTENSIONS},
    }


def resolve(given: Mapping[str, Value], file: Path | None, training: type) -> dict[str, Value]:
    """Return the whole configuration of a run, as both apps read it, or of the one that `resume` goes on with.

    Parameters
    ----------
    given : what the command line says
    file : a TOML file; `[task]` holds what the task alone knows
    training : the settings of the nodes' training, which this room does not know

    Raises
    ------
    SettingError
        If anything in it cannot work.
    DataError
        If the file cannot be read.
    """
    read_file = _read_file(file, training) if file else {}
    return go_on({**read_file, **given}, lambda chosen: _resolve(chosen, training), _FREE)


def _read_file(file: Path, training: type) -> dict[str, Value]:
    return read_tables(file, sections(training), {"task": TASK})


def _resolve(chosen: Mapping[str, Value], training: type) -> dict[str, Value]:
    known = {
        key_of(field.name): None if field.default is MISSING else field.default
        for classes in sections(training).values()
        for cls in classes
        for field in fields(cls)
    }
    config: dict[str, Value] = {key: value for key, value in known.items() if value is not None}
    own = {key: value for key, value in chosen.items() if key.startswith(TASK)}
    for key, value in chosen.items():
        if key not in known and not key.startswith((STRATEGY, POLICY, TASK)):
            raise SettingError(f"{unknown('setting', key, known)}; what the task alone knows is {TASK}{key}")
        config[key] = value
    for key in own:
        if (bare := key.removeprefix(TASK)) in known:
            raise SettingError(f"{bare} is a setting of every run: give it without {TASK}")
    deployed = read(Deployed, config)
    config.setdefault("per-round", deployed.nodes)
    serving = read(Serving, config)
    read(training, config)
    read(DistillationSettings, config)
    read(PersonalLayersSettings, config)
    read(SparsitySettings, config).check(serving.rounds)
    if serving.per_round > deployed.nodes:
        raise SettingError(f"per-round is at most nodes, {deployed.nodes}, got {serving.per_round}")
    groups = read(MixedFleetSettings, config)
    strategy = build_strategy({"clients": deployed.nodes, **config})
    check_federation(groups, strategy, stateless=serving.stateless, shared_initial=serving.shared_initial)
    if groups.dealt:
        raise SettingError(f"a device says itself what it runs: groups have no shares, got {groups.groups!r}")
    build_policy(config)
    return config


def as_run(config: Mapping[str, Value], nodes_file: str, bells: str) -> dict[str, Value]:
    """Return the configuration as the apps get it: the task's own keys without their prefix."""
    own = {key.removeprefix(TASK): value for key, value in config.items() if key.startswith(TASK)}
    rest = {key: value for key, value in config.items() if not key.startswith(TASK)}
    return {"clients": config["nodes"], **own, **rest, "nodes-file": nodes_file, "bells": bells}
