"""How the round's models teach their average: settings, checked when they are read."""

from dataclasses import dataclass

from fedpress.common.errors import SettingError, unknown
from fedpress.common.settings import require
from fedpress.extensions import ExtensionSettings
from fedpress.extensions.distillation.teacher_weights import WEIGHINGS

CRITERIA = ("held-out", "clients", "agreement", "none")
SOURCES = ("held-out", "noise", "inverted", "mnist")
FOLDER = "folder"


@dataclass(frozen=True)
class DistillationSettings(ExtensionSettings):
    """Whether and how the round's models teach their average."""

    distil: bool = False  # teach the average, and keep what was taught where it is better
    distil_weighing: str = "confidence"  # equal, examples, confidence, entropy, or classes, whose counts nodes share
    distil_balance: bool = True  # teachers are heard without the prior of their own examples; false as in FedDF
    distil_previous: bool = True  # from round 2, the model that it began with teaches too: it knows who is absent
    distil_source: str = "held-out"  # of what is taught on: held-out, noise, inverted, mnist or folder:PATH
    distil_proxy: int = 2000  # examples to teach on, held back from the nodes if held-out; targets are not looked at
    distil_mixed: float = 0.0  # share of them that is replaced by mixtures of the others
    distil_inversion: int = 20  # steps in which a teacher turns noise into what it takes for its classes, if inverted
    distil_criterion: str = "held-out"  # by which the taught model is taken: held-out, clients, agreement or none
    distil_margin: float = 0.05  # share by which the loss has to fall for the taught model to be taken
    distil_guard: int = 1000  # examples held back from the nodes for the criterion held-out
    distil_steps: int = 200  # of Adam, in a round
    distil_batch: int = 128  # examples in a step
    distil_lr: float = 3e-3  # of Adam, falling to 0 along a cosine
    distil_temperature: float = 1.0  # by which scores are divided: the higher, the more the less likely answers count
    distil_tune: int = 0  # steps in which what nodes receive is brought to do what the exact model does; 0 for none
    distil_patience: int = 0  # looks, ten a round, without a gain, after which teaching stops; 0 for never

    @property
    def enabled(self) -> bool:
        """Whether the average is taught, or deltas are tuned."""
        return self.distil or self.distil_tune > 0

    @property
    def needs_proxy(self) -> bool:
        """Whether there has to be something to teach on."""
        return self.distil or self.distil_tune > 0

    def __post_init__(self) -> None:
        if self.distil_weighing not in WEIGHINGS:
            raise SettingError(unknown("distil-weighing", self.distil_weighing, WEIGHINGS))
        if self.distil_criterion not in CRITERIA:
            raise SettingError(unknown("distil-criterion", self.distil_criterion, CRITERIA))
        kind, _, path = self.distil_source.partition(":")
        if self.distil_source not in SOURCES and not (kind == FOLDER and path):
            raise SettingError(unknown("distil-source", self.distil_source, (*SOURCES, f"{FOLDER}:PATH")))
        for name in ("distil_mixed", "distil_margin"):
            require(0 <= getattr(self, name) < 1, name, "in [0, 1)", getattr(self, name))
        for name in ("distil_patience", "distil_tune"):
            require(getattr(self, name) >= 0, name, "at least 0", getattr(self, name))
        for name in ("distil_guard", "distil_steps", "distil_batch", "distil_inversion"):
            require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        require(self.distil_proxy >= 2, "distil_proxy", "at least 2", self.distil_proxy)
        for name in ("distil_lr", "distil_temperature"):
            require(getattr(self, name) > 0, name, "above 0", getattr(self, name))
