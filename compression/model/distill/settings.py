"""How a student is taught: settings, checked when they are made."""

from dataclasses import dataclass

from fedpress.common.errors import SettingError
from fedpress.common.settings import require


@dataclass(frozen=True)
class StudentSettings:
    """One student's lessons."""

    epochs: int = 20  # passes over the inputs
    batch: int = 128  # inputs in a step
    lr: float = 3e-3  # greatest of AdamW: it rises for a tenth of the steps and falls along a cosine
    weight_decay: float = 1e-4  # of AdamW
    temperature: float = 4.0  # by which scores are divided: the higher, the more the less likely answers count
    alpha: float = 0.9  # weight of the teacher's answers; the rest is that of targets
    hint: str = ""  # FitNets: the teacher's inner layer and the student's that it guides, as TEACHER:STUDENT
    hint_epochs: int = 2  # passes in which the student learns the hint, before it hears answers
    warm: bool = False  # begin with the teacher's layers where shapes allow
    shift: int = 0  # pictures are moved by so many pixels at most
    flip: bool = False  # and mirrored, every other one
    qat_bits: int = 0  # weights and activations are rounded to these bits in the last epochs; 0 for never
    qat_epochs: int = 3  # how many they are

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "hint_epochs", "qat_epochs"):
            require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        for name in ("lr", "temperature"):
            require(getattr(self, name) > 0, name, "above 0", getattr(self, name))
        for name in ("weight_decay", "shift"):
            require(getattr(self, name) >= 0, name, "at least 0", getattr(self, name))
        require(0 <= self.alpha <= 1, "alpha", "in [0, 1]", self.alpha)
        require(self.qat_bits == 0 or 4 <= self.qat_bits <= 8, "qat_bits", "0, or 4 to 8", self.qat_bits)
        if self.hint and not all(self.hint.partition(":")):
            raise SettingError(f"hint is TEACHER:STUDENT, the names of two layers, got {self.hint!r}")
