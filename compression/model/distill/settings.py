"""Settings of the training of a student."""

from dataclasses import dataclass

from fedpress.common.errors import SettingError
from fedpress.common.settings import require


@dataclass(frozen=True)
class StudentSettings:
    """Settings of the training of one student."""

    epochs: int = 20  # passes over the inputs
    batch: int = 128  # inputs per step
    lr: float = 3e-3  # largest of AdamW: rises for a tenth of the steps, then falls along a cosine
    weight_decay: float = 1e-4  # of AdamW
    temperature: float = 4.0  # by which scores are divided: the higher, the more unlikely classes count
    alpha: float = 0.9  # weight of the teacher's scores; the rest is that of targets
    hint: str = ""  # FitNets: the teacher's inner layer and the student's that it guides, as TEACHER:STUDENT
    hint_epochs: int = 2  # passes of training on the hint, before that on scores
    warm: bool = False  # start from the teacher's tensors of the same name and shape
    shift: int = 0  # images are shifted by at most this number of pixels
    flip: bool = False  # half of the images are mirrored
    qat_bits: int = 0  # to which weights and activations are rounded in the last epochs; 0 for no rounding
    qat_epochs: int = 3  # epochs with rounding

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
            raise SettingError(f"hint must be TEACHER:STUDENT, the names of two layers, got {self.hint!r}")
