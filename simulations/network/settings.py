"""The settings of the simulated network."""

from dataclasses import dataclass

from fedpress.common.settings import require
from fedpress.simulations.network.devices import find_fleet
from fedpress.simulations.network.links import find_link


@dataclass(frozen=True)
class Network:
    """The link and the devices that are simulated, where a round has a deadline or devices leave it."""

    link: str = "4g"  # a name, trace:FILE, or either with ,loss=0.02 and the like behind it
    fleet: str = "this"  # a name, with ,slower=8 and the like behind it
    deadline: float = 0.0  # simulated seconds after which a reply comes too late; 0 for never
    training_pace: float = 0.0  # seconds that this machine trains for an example, all local epochs together
    coding_pace: float = 0.0  # seconds that it decodes and encodes for a reply

    def __post_init__(self) -> None:
        for name in ("deadline", "training_pace", "coding_pace"):
            require(getattr(self, name) >= 0, name, "at least 0", getattr(self, name))
        find_link(self.link)
        find_fleet(self.fleet)
