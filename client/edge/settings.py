"""A device's own settings: client.toml, checked when it is read."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from fedpress.client.edge.backoff import Polling
from fedpress.client.edge.limits import Limits
from fedpress.common.errors import SettingError, unknown
from fedpress.common.settings import Value, key_of, read, read_toml, require

APP = "fedpress.client.app:app"


@dataclass(frozen=True)
class Device:
    """What runs on the device, and on what."""

    app: str = APP  # the ClientApp, module:object; the server has no say in it
    tasks: str = ""  # module:object of tasks and workloads that a run may name beside fedpress's own, between commas
    data: str = ""  # the device's data, if not the task's: folder:PATH, sqlite:PATH?table=NAME or python:MODULE:OBJECT
    state: str = ""  # folder of what must outlive the process; empty for one under $XDG_STATE_HOME

    def __post_init__(self) -> None:
        for name in (self.app, *self.allowed):
            module, colon, attribute = name.partition(":")
            require(bool(module and colon and attribute), "app and tasks", "module:object", repr(name))

    @property
    def allowed(self) -> tuple[str, ...]:
        """The tasks that a run may name."""
        return tuple(name.strip() for name in self.tasks.split(",") if name.strip())


NODE = "node."  # before the names of a node's own configuration
SECTIONS: dict[str, type] = {"device": Device, "polling": Polling, "limits": Limits}


@dataclass(frozen=True)
class Settings:
    """All of it."""

    device: Device
    polling: Polling
    limits: Limits
    node: Mapping[str, Value]  # what the ClientApp finds in its context's node_config, beside the enrolment's


def resolve(given: Mapping[str, Value], file: Path | None = None) -> Settings:
    """Return the settings of a device: what is `given`, over a TOML file's, over the defaults.

    Raises
    ------
    SettingError
        If anything in it cannot work.
    DataError
        If the file cannot be read.
    """
    chosen = {**(_flat(file) if file else {}), **given}
    keys = {key_of(field.name) for section in SECTIONS.values() for field in fields(section)}
    for key in chosen:
        if key not in keys and not key.startswith(NODE):
            raise SettingError(unknown("setting", key, keys))
    node = {key.removeprefix(NODE): value for key, value in chosen.items() if key.startswith(NODE)}
    if "name" in node:
        raise SettingError(f"a node's name is its enrolment's, got node.name {node['name']!r}")
    return Settings(**{name: read(section, chosen) for name, section in SECTIONS.items()}, node=node)


def _flat(path: Path) -> dict[str, Value]:
    flat: dict[str, Any] = {}
    for name, value in read_toml(path).items():
        if not isinstance(value, dict):
            flat[name] = value
        elif name in SECTIONS:
            flat |= value
        elif name == NODE[:-1]:
            flat |= {NODE + key: item for key, item in value.items()}
        else:
            raise SettingError(f"{path}: {unknown('table', name, [*SECTIONS, NODE[:-1]])}")
    for name, value in flat.items():
        if not isinstance(value, str | int | float | bool):
            raise SettingError(f"{path}: {name} is one value, got {value!r}")
    return flat
