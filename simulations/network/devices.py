"""Classes of devices: how much slower than this machine they train, and how often they drop out."""

from dataclasses import dataclass, replace

from fedpress.common.errors import SettingError, unknown
from fedpress.common.rng import derive
from fedpress.common.settings import require
from fedpress.settings.network import DeviceClassSettings


@dataclass(frozen=True)
class DeviceClass:
    """A class of devices, with log-normal slowness and, in addition, stragglers."""

    name: str = "this"
    slower: float = 1.0  # training and coding time of the median device, relative to the machine that measured
    spread: float = 0.0  # standard deviation of the logarithm of `slower`
    stragglers: float = 0.0  # share of devices that are stragglers
    straggling: float = 1.0  # factor by which stragglers are slower still
    dropouts: float = 0.0  # share of its rounds that a device starts and does not finish

    def __post_init__(self) -> None:
        for name in ("slower", "straggling"):
            require(getattr(self, name) > 0, name, "above 0", getattr(self, name))
        require(self.spread >= 0, "spread", "at least 0", self.spread)
        require(0 <= self.stragglers <= 1, "stragglers", "in [0, 1]", self.stragglers)
        require(0 <= self.dropouts < 1, "dropouts", "in [0, 1)", self.dropouts)

    def slowness(self, node: str, seed: int) -> float:
        """Return the slowness of device `node`, which is constant during a run."""
        rng = derive(seed, "fleet", node)
        times = self.slower * float(rng.lognormal(0.0, self.spread))
        return times * (self.straggling if rng.random() < self.stragglers else 1.0)

    def drops(self, node: str, round: int, seed: int) -> bool:
        """Return whether device `node` drops out of round `round`."""
        return bool(derive(seed, "dropout", round, node).random() < self.dropouts)


# Assumptions, not measurements: change them for your devices.
FLEETS = {
    fleet.name: fleet
    for fleet in (
        DeviceClass(),
        DeviceClass("boards", slower=8.0, spread=0.1),
        DeviceClass("phones", slower=4.0, spread=0.6, stragglers=0.05, straggling=5.0, dropouts=0.02),
    )
}


def find_devices(settings: DeviceClassSettings) -> DeviceClass:
    """Return the class of devices that `settings` name, with their changes; raise SettingError if unknown."""
    changes = {key: value for key, value in vars(settings).items() if key != "name" and value is not None}
    if settings.name not in FLEETS:
        raise SettingError(unknown("devices", settings.name, FLEETS))
    if not changes:
        return FLEETS[settings.name]
    name = ",".join([settings.name, *(f"{key}={value:g}" for key, value in changes.items())])
    return replace(FLEETS[settings.name], name=name, **changes)
