"""How the models of a round teach their average."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedpress.common.errors import SettingError, unknown
from fedpress.common.settings import option
from fedpress.settings.extension import ExtensionSettings, require_holdout

if TYPE_CHECKING:
    from fedpress.settings import RunSettings

TEACHER_WEIGHTS = ("equal", "examples", "confidence", "entropy", "classes")
CRITERIA = ("held-out", "clients", "agreement", "none")
SOURCES = ("held-out", "noise", "inverted", "mnist")
FOLDER = "folder"


@dataclass(frozen=True)
class DistillationSettings(ExtensionSettings):
    """Whether and how the models of a round teach their average."""

    enabled: bool = option(False, flag="distil", help="let a round's models teach their average")
    teacher_weights: str = option(
        "confidence",
        choices=TEACHER_WEIGHTS,
        help="what teachers are weighted by; for classes, nodes send their counts",
    )
    balance: bool = option(True, help="correct each teacher for its own label distribution; false as in FedDF")
    previous_model: bool = option(True, help="from round 2 on, the model that the round began with teaches too")
    source: str = option("held-out", help="inputs to teach on: held-out, noise, inverted, mnist or folder:PATH")
    proxy_examples: int = option(
        2000, minimum=2, help="number of inputs to teach on, held back from the nodes if held-out; labels are not used"
    )
    mixed: float = option(0.0, minimum=0, below=1, help="share of them that is replaced by mixtures of the others")
    inversion_steps: int = option(20, minimum=1, help="steps that turn noise into a teacher's classes, if inverted")
    criterion: str = option("held-out", choices=CRITERIA, help="what decides whether the taught model is accepted")
    margin: float = option(0.05, minimum=0, below=1, help="share by which its loss must fall to be accepted")
    guard_examples: int = option(1000, minimum=1, help="examples held back from the nodes for the criterion held-out")
    steps: int = option(200, minimum=1, help="steps of Adam in a round")
    proxy_batch_size: int = option(128, minimum=1, help="inputs of a step")
    proxy_lr: float = option(3e-3, above=0, help="learning rate of Adam, falling to 0 along a cosine")
    temperature: float = option(1.0, above=0, help="scores are divided by it: the higher, the softer the answers")
    tune_steps: int = option(
        0, minimum=0, help="steps by which what nodes receive is tuned to answer as the exact model does; 0 for none"
    )
    patience: int = option(
        0, minimum=0, help="evaluations, ten a round, without a gain, after which teaching stops; 0 for never"
    )

    @property
    def active(self) -> bool:
        """Whether the average is taught, or deltas are tuned."""
        return self.enabled or self.tune_steps > 0

    @property
    def needs_class_counts(self) -> bool:
        return self.enabled and self.teacher_weights == "classes"

    def check(self) -> None:
        kind, _, path = self.source.partition(":")
        if self.source not in SOURCES and not (kind == FOLDER and path):
            raise SettingError(unknown("source", self.source, (*SOURCES, f"{FOLDER}:PATH")))

    def check_run(self, run: "RunSettings") -> None:
        if self.enabled and self.criterion == "clients":
            require_holdout(run, "criterion clients")
