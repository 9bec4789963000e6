"""The settings of a device: client.toml."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from fedpress.common.errors import SettingError
from fedpress.common.settings import Arguments, Schema, Settings, free_arguments, option, require

_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]|24):([0-5]\d)")
_DAY = 24 * 60  # minutes


@dataclass(frozen=True)
class DeviceSettings(Settings):
    """The programs and the data of the device."""

    app: str = option("fedpress.client.app:app", help="the ClientApp, module:object; the server cannot change it")
    tasks: tuple[str, ...] = option(
        (), help="tasks, workloads and models, module:object, that a run may name in addition to those of fedpress"
    )
    codecs: tuple[str, ...] = option(
        (),
        help="codecs, module:object, that a run may name in addition to those of fedpress and of installed packages",
    )
    data: str = option(
        "", help="the device's data, if not the task's: folder:PATH, sqlite:PATH?table=NAME or python:MODULE:OBJECT"
    )
    state: str = option(
        "", help="folder of the state that is kept between starts; one under $XDG_STATE_HOME if not given"
    )

    def check(self) -> None:
        for name in (self.app, *self.tasks, *self.codecs):
            module, colon, attribute = name.partition(":")
            if not (module and colon and attribute):
                raise SettingError(f"app, tasks and codecs must be module:object, got {name!r}")


@dataclass(frozen=True)
class NodeSettings(Settings):
    """The node's configuration, which the ClientApp reads."""

    arguments: Arguments = free_arguments("entries of the node_config in the ClientApp's context")

    def check(self) -> None:
        if given := dict(self.arguments).get("name"):
            raise SettingError(f"name must be left to the enrolment, got node.name {given!r}")


@dataclass(frozen=True)
class PollingSettings(Settings):
    """How often a device polls the server."""

    poll_min: float = option(0.1, above=0, help="seconds between a reply and the next request")
    poll_max: float = option(3.0, help="greatest number of seconds between two requests when there is no work")
    backoff: float = option(
        1.0,
        above=0,
        help="longest first wait in seconds if the server does not answer; it may double with each attempt",
    )
    backoff_max: float = option(60.0, help="longest such wait, seconds")
    refused: float = option(300.0, above=0, help="seconds between attempts while the server refuses the device's key")
    heartbeat: float = option(  # the bounds are Flower's own
        30.0,
        minimum=10,
        maximum=1800,
        help="seconds between heartbeats: a node is offline for the server after two are missing",
    )

    def check(self) -> None:
        require(self.poll_max >= self.poll_min, "poll_max", f"at least poll-min, {self.poll_min}", self.poll_max)
        require(self.backoff_max >= self.backoff, "backoff_max", f"at least backoff, {self.backoff}", self.backoff_max)


@dataclass(frozen=True)
class LimitSettings(Settings):
    """Limits of the resources that a device contributes."""

    threads: int = option(1, minimum=1, help="threads of torch")
    memory: int = option(0, minimum=0, help="MB of private memory, 0 for no limit; a round whose app needs more fails")
    nice: int = option(
        10, minimum=0, maximum=19, help="niceness of the process: higher values yield more to other processes"
    )
    hours: tuple[str, ...] = option(
        (), help="spans of local time in which it trains, such as 22:00-06:00; empty for always"
    )
    allow: str = option("", help="a command that exits with 0 if the device may train now; empty for always")
    allow_seconds: float = option(10.0, above=0, help="seconds after which the command counts as a refusal")
    bytes_a_day: int = option(
        0, minimum=0, help="bytes of HTTP, both ways, per local day, beyond which no round begins; 0 for no limit"
    )

    def check(self) -> None:
        read_hours(self.hours)
        try:
            shlex.split(self.allow)
        except ValueError as error:
            raise SettingError(f"allow must be a command, got {self.allow!r}: {error}") from error


def read_hours(hours: Sequence[str]) -> list[tuple[int, int]]:
    """Return the spans `hours` in minutes from midnight; one that ends before it begins spans midnight."""
    spans = []
    for part in hours:
        found = _HOURS.fullmatch(part.strip())
        if not found:
            raise SettingError(f"hours must be a list of HH:MM-HH:MM, got {part!r}")
        begin, end = (int(found[i]) * 60 + int(found[i + 1]) for i in (1, 3))
        if begin == end or end > _DAY:
            raise SettingError(f"hours must be spans of the day, got {part!r}")
        spans.append((begin, end))
    return spans


@dataclass(frozen=True)
class ClientSettings:
    """All settings of a device, by section."""

    device: DeviceSettings
    polling: PollingSettings
    limits: LimitSettings
    node: NodeSettings


@cache
def client_schema() -> Schema:
    """Return the sections of client.toml."""
    return Schema({"device": DeviceSettings, "polling": PollingSettings, "limits": LimitSettings, "node": NodeSettings})
