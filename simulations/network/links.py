"""Links by name, each with its source: the time and energy of bytes.

docs/explanation/links.md has the model.
"""

import csv
import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from fedpress.common.errors import DataError, SettingError, unknown
from fedpress.common.settings import require
from fedpress.settings.network import LinkSettings

Way = Literal["up", "down"]
TRACE = "trace:"


@dataclass(frozen=True)
class Power:
    """Power of a radio while it sends or receives: `base` plus `up` or `down` for each Mbit/s, watts."""

    base: float
    up: float
    down: float
    source: str


@dataclass(frozen=True)
class Trace:
    """Measured bandwidths: from second `seconds[i]` on `up[i]` and `down[i]` bit/s; repeated after the end."""

    seconds: tuple[float, ...]  # rising from 0; the last is the end of the trace, without a bandwidth
    up: tuple[float, ...]
    down: tuple[float, ...]

    @cached_property
    def _transferred(self) -> dict[Way, np.ndarray]:
        """Bits transferred by each of `seconds`, for each direction."""
        spans = np.diff(self.seconds)
        return {way: np.concatenate([[0.0], np.cumsum(spans * getattr(self, way))]) for way in ("up", "down")}

    def finish(self, way: Way, start: float, bits: float) -> float:
        """Return the second at which a transfer of `bits` that begins at second `start` ends."""
        transferred, period = self._transferred[way], self.seconds[-1]
        laps, within = divmod(start, period)
        wanted = float(np.interp(within, self.seconds, transferred)) + bits
        more, rest = divmod(wanted, float(transferred[-1]))
        if rest == 0 and more > 0:  # it ends with this lap, not after a pause at the start of the next
            more, rest = more - 1, float(transferred[-1])
        at = int(np.searchsorted(transferred, rest))
        rate = getattr(self, way)[max(at - 1, 0)]
        last = (
            self.seconds[at]
            if rest == transferred[at]
            else self.seconds[at - 1] + (rest - float(transferred[at - 1])) / rate
        )
        return (laps + more) * period + last


@dataclass(frozen=True)
class Link:
    """A link between a device and the server."""

    name: str
    down: float  # bit/s to the device, while sending is allowed
    up: float  # bit/s from it
    latency: float  # seconds, one way
    source: str
    loss: float = 0.0  # share of packets that are lost and retransmitted
    payload: int = 1460  # bytes of a message that fit into a packet
    overhead: int = 40  # bytes of headers per packet
    duty: float = 1.0  # share of the time in which sending is allowed
    power: Power | None = None
    trace: Trace | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name in ("down", "up", "payload"):
            require(getattr(self, name) > 0, name, "above 0", getattr(self, name))
        require(self.latency >= 0, "latency", "at least 0", self.latency)
        require(0 <= self.loss < 1, "loss", "in [0, 1)", self.loss)
        require(0 < self.duty <= 1, "duty", "in (0, 1]", self.duty)

    def bits(self, nbytes: int) -> float:
        """Return the expected number of bits sent for `nbytes`, with headers and retransmissions."""
        return 8 * (nbytes + math.ceil(nbytes / self.payload) * self.overhead) / (1 - self.loss)

    def seconds(self, way: Way, nbytes: int, start: float = 0.0) -> float:
        """Return the seconds of a transfer of `nbytes` that begins at second `start`; 0 for no bytes."""
        if not nbytes:
            return 0.0
        bits = self.bits(nbytes)
        if self.trace is not None:
            return self.latency + self.trace.finish(way, start, bits) - start
        return self.latency + bits / (self._rate(way) * self.duty)

    def joules(self, way: Way, nbytes: int) -> float | None:
        """Return the energy of the device's radio for `nbytes`, joules; None if unknown for this link."""
        if self.power is None:
            return None
        rate = self._rate(way)
        rising = self.power.up if way == "up" else self.power.down
        return (self.power.base + rising * rate / 1e6) * self.bits(nbytes) / rate

    def _rate(self, way: Way) -> float:
        return self.up if way == "up" else self.down


_FIREFOX = "https://firefox-source-docs.mozilla.org/devtools-user/network_monitor/throttling/"
_NB1 = "https://blog.mbedded.ninja/electronics/communication-protocols/cellular"
_M1 = "https://www.rfwireless-world.com/Terminology/Difference-between-LTE-M-device-categories-Cat-0-vs-Cat-M1-vs-Cat-M2.html"
_HUANG = "Huang et al. 2012, table 4, https://doi.org/10.1145/2307636.2307658"
_SX1276 = "Semtech SX1276 datasheet: 29 mA to send at 13 dBm, 11.5 mA to receive, at 3.3 V"

LINKS = {
    link.name: link
    for link in (
        Link(
            "lora",
            5470,
            5470,
            1.0,
            "LoRaWAN regional parameters, EU863-870, DR5: 222 bytes a packet, 1 % of the time, answers after 1 s",
            payload=222,
            overhead=13,
            duty=0.01,
            power=Power(0.038, 10.55, 0.0, _SX1276),  # 0.0957 W to send 5,470 bit/s
        ),
        Link("nb-iot", 26e3, 62e3, 1.6, f"3GPP category NB1, peak rates, least latency: {_NB1}"),
        Link(
            "lte-m",
            300e3,
            375e3,
            0.015,
            f"3GPP category M1, half duplex, scheduling counted in: {_M1}; latency: {_NB1}",
        ),
        Link("3g", 750e3, 250e3, 0.1, f"Regular 3G of {_FIREFOX}", power=Power(0.81788, 0.86898, 0.12212, _HUANG)),
        Link("4g", 4e6, 3e6, 0.02, f"Regular 4G/LTE of {_FIREFOX}", power=Power(1.28804, 0.43839, 0.05197, _HUANG)),
        Link("dsl", 2e6, 1e6, 0.005, f"DSL of {_FIREFOX}"),
        Link("wifi", 30e6, 15e6, 0.002, f"Wi-Fi of {_FIREFOX}", power=Power(0.13286, 0.28317, 0.13701, _HUANG)),
    )
}


def find_link(settings: LinkSettings) -> Link:
    """Return the link that `settings` name, with their changes; raise SettingError or DataError if unknown."""
    changes = {key: value for key, value in vars(settings).items() if key != "name" and value is not None}
    if settings.name.startswith(TRACE):
        path = settings.name.removeprefix(TRACE)
        if measured := sorted({"down", "up", "duty"} & changes.keys()):
            raise SettingError(f"{measured[0]} must be left to the trace {path!r}, which measured it")
        link = read_trace(Path(path).expanduser())
    elif settings.name in LINKS:
        link = LINKS[settings.name]
    else:
        raise SettingError(f"{unknown('link', settings.name, LINKS)}; measured ones are {TRACE}FILE")
    if not changes:
        return link
    name = ",".join([link.name, *(f"{key}={value:g}" for key, value in changes.items())])
    return replace(link, name=name, source=f"{link.source}; changed", **changes)


def read_trace(path: Path) -> Link:
    """Return the link of a measured trace: CSV with columns seconds, down and up, bit/s; optionally latency.

    Raises DataError if the file is no such table.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is no trace of a link: {error}") from error
    if len(rows) < 2 or not {"seconds", "down", "up"} <= rows[0].keys():
        raise DataError(
            f"{path} is no trace of a link: it must have columns seconds, down, up (bit/s), and at least two rows"
        )
    columns = {key: tuple(row[key] for row in rows) for key in rows[0]}
    if not np.isfinite(list(columns.values())).all():
        raise DataError(f"{path} is no trace of a link: its numbers must be finite")
    if columns["seconds"][0] != 0 or any(
        a >= b for a, b in zip(columns["seconds"], columns["seconds"][1:], strict=False)
    ):
        raise DataError(f"{path} is no trace of a link: its seconds must rise from 0")
    trace = Trace(columns["seconds"], columns["up"][:-1], columns["down"][:-1])
    means = {way: float(np.average(columns[way][:-1], weights=np.diff(columns["seconds"]))) for way in ("up", "down")}
    if min(*columns["up"], *columns["down"]) < 0 or min(means.values()) <= 0:
        raise DataError(f"{path} is no trace of a link: bandwidths must be at least 0, and not all 0")
    latency = float(np.mean(columns["latency"])) if "latency" in columns else 0.0
    return Link(f"{TRACE}{path.resolve()}", means["down"], means["up"], latency, f"measured: {path}", trace=trace)
