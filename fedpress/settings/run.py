"""All settings of a run, typed, for both apps, the engines and the command line."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any, TypeVar

from fedpress.common.errors import SettingError
from fedpress.common.settings import Schema, Settings, Value
from fedpress.extensions import EXTENSIONS
from fedpress.settings.codecs import down_codec, up_codec
from fedpress.settings.deployment import DeploymentSettings, TaskSettings
from fedpress.settings.execution import ExecutionSettings
from fedpress.settings.extension import ExtensionSettings, NodeModel
from fedpress.settings.network import NetworkSettings
from fedpress.settings.node import NodeConfig
from fedpress.settings.registry import extension_sections
from fedpress.settings.server import PolicySettings, ServerSettings, StrategySettings
from fedpress.settings.simulation import SimulationSettings
from fedpress.settings.training import TrainingSettings

S = TypeVar("S", bound=Settings)

# A result also has these without their section.
SHORT = ("up", "down", "workload", "model", "seed", "rounds", "clients", "per-round")

ONLY_SIMULATED = {"network"}  # sections
ONLY_DEPLOYED = {"deployment", "task"}


@dataclass(frozen=True)
class RunSettings:
    """The settings of one run, by section.

    Examples
    --------
    >>> settings = RunSettings.from_config({"server.rounds": 3, "server.per-round": 2, "simulation.clients": 10})
    >>> settings.server.rounds, settings.training.lr
    (3, 0.1)
    """

    run: ExecutionSettings
    simulation: SimulationSettings
    server: ServerSettings
    strategy: StrategySettings
    policy: PolicySettings
    training: TrainingSettings
    network: NetworkSettings
    deployment: DeploymentSettings
    task: TaskSettings
    extensions: tuple[ExtensionSettings, ...]  # one section of each extension, in the order of their registry

    @staticmethod
    def schema() -> Schema:
        """Return the sections of a run's settings."""
        return _schema()

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "RunSettings":
        """Return the settings in a flat mapping with full keys, such as Flower's run config or a result's `config`.

        Undeclared keys are ignored: a configuration may also have those of another app.

        Raises
        ------
        SettingError
            If a setting is missing that has no default, or a value is of the wrong type or out of range.
        """
        plain = ((key, json.dumps(v) if isinstance(v, list | tuple) else v) for key, v in config.items())
        return _parse(tuple((key, value, type(value)) for key, value in plain if not isinstance(value, dict)))

    @classmethod
    def read(cls, flat: Mapping[str, Any]) -> "RunSettings":
        """Return the settings in a flat mapping with full keys, whose lists need not be JSON text."""
        sections = _schema().read(flat)
        extensions = tuple(sections.pop(name) for name in extension_sections())
        return cls(**sections, extensions=extensions)

    def to_config(self) -> dict[str, Value]:
        """Return all settings as a flat mapping with full keys, as Flower's run config takes it.

        Sections are left out that a run of this kind, simulated or deployed, does not have.
        """
        absent = ONLY_SIMULATED if self.deployed else ONLY_DEPLOYED
        return _schema().write({name: section for name, section in self.sections.items() if name not in absent})

    def to_result(self) -> dict[str, Value]:
        """Return the `config` of result.json, in which a few settings have a second key without their section."""
        config = self.to_config()
        return {**config, **{short: config[_schema().find(short)] for short in SHORT}}

    @property
    def sections(self) -> dict[str, Settings]:
        """All sections by name, with those of extensions."""
        core = {declared.name: getattr(self, declared.name) for declared in fields(self) if declared.name in CORE}
        return {**core, **dict(zip(extension_sections(), self.extensions, strict=True))}

    @property
    def extensions_by_name(self) -> dict[str, ExtensionSettings]:
        """The extensions' sections by the names of their extensions."""
        return dict(zip(EXTENSIONS, self.extensions, strict=True))

    def extension(self, cls: type[S]) -> S:
        """Return the section of the extension whose settings are of class `cls`."""
        return next(section for section in self.extensions if isinstance(section, cls))

    @property
    def prunes(self) -> bool:
        """Whether an extension prunes weights during training."""
        return any(extension.prunes for extension in self.extensions)

    @property
    def needs_class_counts(self) -> bool:
        """Whether an extension needs the nodes' counts of examples of each class."""
        return any(extension.needs_class_counts for extension in self.extensions)

    def highlights(self, scores: Mapping[str, Any]) -> dict[str, str]:
        """Return what the active extensions show of a round's row, or of the final scores: text by its heading."""
        active = (extension for extension in self.extensions if extension.active)
        return {heading: text for extension in active for heading, text in extension.highlights(scores).items()}

    def node_model(self, node: NodeConfig) -> NodeModel | None:
        """Return the model of `node`; None for the run's."""
        models = (extension.node_model(node, self.clients, self.run.seed) for extension in self.extensions)
        return next((model for model in models if model is not None), None)

    @property
    def deployed(self) -> bool:
        """Whether real devices take part."""
        return self.deployment.nodes > 0

    @property
    def clients(self) -> int:
        """The number of nodes."""
        return self.deployment.nodes or self.simulation.clients

    def completed(self) -> "RunSettings":
        """Return these settings with those that the extensions' settings imply.

        Raises
        ------
        SettingError
            If sections conflict, or a codec cannot be had.
        """
        self.server.check_codecs()
        run = self
        for extension in self.extensions:
            run = extension.complete(run)
        share, server = run.training.subspace, run.server
        codecs = {"up": up_codec(server.up, share), "down": down_codec(server.down, share, server.broadcast)}
        for way, codec in codecs.items():
            if codec.subspace_share not in (0.0, share):
                raise SettingError(f"{way} must have the share of training.subspace, {share}, got {str(codec)!r}")
        for name, extension in zip(extension_sections(), run.extensions, strict=True):
            if run.training.subspace and extension.active and extension.changes_model:
                raise SettingError(f"subspace must be 0 with {name}, which leaves it, got {run.training.subspace}")
            extension.check_run(run)
        return run

    def change(self, section: str, **values: Any) -> "RunSettings":
        """Return these settings with fields of one core section changed."""
        return replace(self, **{section: replace(getattr(self, section), **values)})


CORE: dict[str, type[Settings]] = {
    "run": ExecutionSettings,
    "simulation": SimulationSettings,
    "server": ServerSettings,
    "strategy": StrategySettings,
    "policy": PolicySettings,
    "training": TrainingSettings,
    "network": NetworkSettings,
    "deployment": DeploymentSettings,
    "task": TaskSettings,
}


def named_objects(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings of a run's config that may name an object to import, `package.module:object`."""
    keys = {"task": "deployment.task", "workload": "simulation.workload", "model": "simulation.model"}
    return {name: str(config.get(key, "")) for name, key in keys.items()}


@lru_cache(maxsize=1)
def _schema() -> Schema:
    return Schema({**CORE, **extension_sections()})


@lru_cache(maxsize=8)
def _parse(items: tuple[tuple[str, Any, type], ...]) -> RunSettings:
    """Return the settings; the types distinguish 1, 1.0 and True, which are equal keys of a cache."""
    return RunSettings.read({key: value for key, value, _ in items})
