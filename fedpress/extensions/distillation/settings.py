"""The settings of the distillation of a round's models into their average."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from fedpress.common.errors import SettingError, unknown
from fedpress.common.settings import option
from fedpress.settings.extension import ExtensionSettings, require_holdout

if TYPE_CHECKING:
    from fedpress.settings import RunSettings

TEACHER_WEIGHTS = ("equal", "examples", "confidence", "entropy", "classes")
CRITERIA = ("held-out", "clients", "agreement", "none")
HERE = ("held-out", "noise", "inverted")  # sources that need no other data
SOURCES = (*HERE, "mnist")
FOLDER = "folder"
PROXY, GUARD = "proxy-examples", "guard-examples"  # settings of the numbers of examples that are held back


@dataclass(frozen=True)
class DistillationSettings(ExtensionSettings):
    """Whether and how the models of a round are distilled into their average."""

    changes_model: ClassVar[bool] = True

    enabled: bool = option(False, flag="distil", help="distil a round's models into their average")
    teacher_weights: str = option(
        "confidence",
        choices=TEACHER_WEIGHTS,
        help="how teachers are weighted; with classes, nodes send their class counts",
    )
    balance: bool = option(True, help="correct each teacher for its own label distribution; false as in FedDF")
    previous_model: bool = option(True, help="from round 2 on, the round's first model is a teacher too")
    source: str = option(
        "held-out", path=f"{FOLDER}:", help="inputs to train on: held-out, noise, inverted, mnist or folder:PATH"
    )
    proxy_examples: int = option(
        2000, minimum=2, help="number of inputs to train on, held back from the nodes if held-out; labels are not used"
    )
    mixed: float = option(0.0, minimum=0, below=1, help="share of these inputs that is replaced by mixtures")
    inversion_steps: int = option(
        20, minimum=1, help="optimization steps from noise to a teacher's classes, with source inverted"
    )
    criterion: str = option("held-out", choices=CRITERIA, help="what decides whether the distilled model is accepted")
    margin: float = option(0.05, minimum=0, below=1, help="share by which the loss must fall for acceptance")
    guard_examples: int = option(1000, minimum=1, help="examples held back from the nodes for the criterion held-out")
    steps: int = option(200, minimum=1, help="steps of Adam per round")
    proxy_batch_size: int = option(128, minimum=1, help="inputs per step")
    proxy_lr: float = option(3e-3, above=0, help="learning rate of Adam, falling to 0 along a cosine")
    temperature: float = option(1.0, above=0, help="scores are divided by it: higher values give softer targets")
    tune_steps: int = option(
        0, minimum=0, help="steps that tune the model that nodes receive to predict as the exact one; 0 for none"
    )

    @property
    def active(self) -> bool:
        """Whether models are distilled or deltas are tuned."""
        return self.enabled or self.tune_steps > 0

    @property
    def held_back(self) -> dict[str, int]:
        if not self.active:
            return {}
        proxy, guard = self.source == "held-out", self.enabled and self.criterion == "held-out"
        return {PROXY: self.proxy_examples * proxy, GUARD: self.guard_examples * guard}

    @property
    def needs_class_counts(self) -> bool:
        return self.enabled and self.teacher_weights == "classes"

    def highlights(self, scores: Mapping[str, Any]) -> dict[str, str]:
        if "distilled" not in scores:
            return {}
        return {"distilled model": "accepted" if scores["distilled"] else "rejected"}

    def check(self) -> None:
        kind, _, path = self.source.partition(":")
        if self.source not in SOURCES and not (kind == FOLDER and path):
            raise SettingError(unknown("source", self.source, (*SOURCES, f"{FOLDER}:PATH")))

    def measures(self, rounds: Sequence[Mapping[str, Any]], final: Mapping[str, Any], last: int) -> dict[str, float]:
        accepted = [row["distilled"] for row in rounds if "distilled" in row]
        return {"rounds with an accepted distilled model": sum(accepted)} if accepted else {}

    def check_run(self, run: "RunSettings") -> None:
        if self.enabled and self.criterion == "clients":
            require_holdout(run, "criterion clients")
