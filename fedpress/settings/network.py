"""The simulated network: link, devices and deadline."""

from dataclasses import dataclass

from fedpress.common.settings import Settings, option, table


@dataclass(frozen=True)
class LinkSettings(Settings):
    """A link by name, and the properties that replace its own."""

    name: str = option("4g", path="trace:", help="a link of the table in the docs, or trace:FILE")
    down: float | None = option(None, above=0, help="bit/s to the device; the link's own if not given")
    up: float | None = option(None, above=0, help="bit/s from the device; the link's own if not given")
    latency: float | None = option(None, minimum=0, help="seconds, one way; the link's own if not given")
    loss: float | None = option(None, minimum=0, below=1, help="share of packets that are lost and sent again")
    payload: int | None = option(None, minimum=1, help="bytes of a message in a packet; the link's own if not given")
    overhead: int | None = option(None, minimum=0, help="bytes of headers in a packet; the link's own if not given")
    duty: float | None = option(None, above=0, maximum=1, help="share of the time in which a device may send")


@dataclass(frozen=True)
class DeviceClassSettings(Settings):
    """A class of devices by name, and the properties that replace its own."""

    name: str = option("this", help="a class of devices of the table in the docs")
    slower: float | None = option(None, above=0, help="how many times slower than this machine the median device is")
    spread: float | None = option(None, minimum=0, help="standard deviation of the logarithm of this factor")
    stragglers: float | None = option(None, minimum=0, maximum=1, help="share of devices that are stragglers")
    straggling: float | None = option(None, above=0, help="how many times slower stragglers are than other devices")
    dropouts: float | None = option(None, minimum=0, below=1, help="share of rounds in which a device drops out")


@dataclass(frozen=True)
class NetworkSettings(Settings):
    """Link, devices and deadline of the simulated rounds."""

    link: LinkSettings = table(LinkSettings)
    devices: DeviceClassSettings = table(DeviceClassSettings)
    deadline: float = option(0.0, minimum=0, help="simulated seconds after which a reply is late; 0 for never")
    training_pace: float = option(
        0.0, minimum=0, help="seconds of training per example on this machine, over all local epochs"
    )
    coding_pace: float = option(0.0, minimum=0, help="seconds of decoding and encoding per reply on this machine")
