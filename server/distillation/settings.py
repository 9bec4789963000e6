"""How the round's models teach their average: settings, checked when they are read."""

from dataclasses import dataclass

from fedpress.compression.errors import SettingError, unknown
from fedpress.compression.settings import require
from fedpress.server.distillation.weighing import WEIGHINGS


@dataclass(frozen=True)
class Distilling:
    """Whether and how the round's models teach their average."""

    distil: bool = False  # teach the average, and keep what was taught where it is better
    distil_weighing: str = "equal"  # of the teachers: equal, examples, confidence, entropy or classes
    distil_proxy: int = 2000  # examples held back from the nodes, to teach on; their targets are not looked at
    distil_guard: int = 1000  # examples held back from the nodes, to tell whether the taught model is better
    distil_steps: int = 100  # of Adam, in a round
    distil_batch: int = 128  # examples in a step
    distil_lr: float = 1e-3  # of Adam, falling to 0 along a cosine
    distil_temperature: float = 1.0  # by which scores are divided: the higher, the more the less likely answers count

    def __post_init__(self) -> None:
        if self.distil_weighing not in WEIGHINGS:
            raise SettingError(unknown("distil-weighing", self.distil_weighing, WEIGHINGS))
        for name in ("distil_proxy", "distil_guard", "distil_steps", "distil_batch"):
            require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        for name in ("distil_lr", "distil_temperature"):
            require(getattr(self, name) > 0, name, "above 0", getattr(self, name))
