"""Devices: how many times slower than this machine each trains, and how often one does not answer."""

from dataclasses import dataclass, replace

from fedpress.common.errors import SettingError, unknown
from fedpress.common.rng import derive
from fedpress.common.settings import require
from fedpress.settings.network import DeviceClassSettings


@dataclass(frozen=True)
class DeviceClass:
    """Log-normal: most devices are near the median, a few are far from it; stragglers come on top."""

    name: str = "this"
    slower: float = 1.0  # the median device trains and codes so many times slower than the machine that measured
    spread: float = 0.0  # standard deviation of the logarithm of that
    stragglers: float = 0.0  # share of devices that are slower still
    straggling: float = 1.0  # by so many times
    dropouts: float = 0.0  # share of rounds that a device begins and does not finish

    def __post_init__(self) -> None:
        for name in ("slower", "straggling"):
            require(getattr(self, name) > 0, name, "above 0", getattr(self, name))
        require(self.spread >= 0, "spread", "at least 0", self.spread)
        require(0 <= self.stragglers <= 1, "stragglers", "in [0, 1]", self.stragglers)
        require(0 <= self.dropouts < 1, "dropouts", "in [0, 1)", self.dropouts)

    def slowness(self, node: str, seed: int) -> float:
        """Return how many times slower device `node` is; the same for the whole run."""
        rng = derive(seed, "fleet", node)
        times = self.slower * float(rng.lognormal(0.0, self.spread))
        return times * (self.straggling if rng.random() < self.stragglers else 1.0)

    def drops(self, node: str, round: int, seed: int) -> bool:
        """Return whether device `node` leaves round `round` before it is done."""
        return bool(derive(seed, "dropout", round, node).random() < self.dropouts)


# Nobody has measured these for this machine: they are plain assumptions, to be changed.
FLEETS = {
    fleet.name: fleet
    for fleet in (
        DeviceClass(),
        DeviceClass("boards", slower=8.0, spread=0.1),
        DeviceClass("phones", slower=4.0, spread=0.6, stragglers=0.05, straggling=5.0, dropouts=0.02),
    )
}


def find_devices(settings: DeviceClassSettings) -> DeviceClass:
    """Return the devices that `settings` name, changed as they say; raise SettingError if there are none."""
    changes = {key: value for key, value in vars(settings).items() if key != "name" and value is not None}
    if settings.name not in FLEETS:
        raise SettingError(unknown("devices", settings.name, FLEETS))
    if not changes:
        return FLEETS[settings.name]
    name = ",".join([settings.name, *(f"{key}={value:g}" for key, value in changes.items())])
    return replace(FLEETS[settings.name], name=name, **changes)
