"""The settings of a student's training."""

from dataclasses import dataclass

from fedpress.common.settings import Settings, option


@dataclass(frozen=True)
class StudentSettings(Settings):
    """How a student is trained by its teacher."""

    epochs: int = option(20, minimum=1, help="passes over the inputs")
    batch_size: int = option(128, minimum=1, help="inputs of a step")
    lr: float = option(3e-3, above=0, help="greatest learning rate of AdamW: a tenth of the steps up, then a cosine")
    weight_decay: float = option(1e-4, minimum=0, help="weight decay of AdamW")
    temperature: float = option(4.0, above=0, help="scores are divided by it: the higher, the softer the answers")
    alpha: float = option(0.9, minimum=0, maximum=1, help="weight of the teacher's answers; the rest is the labels'")
    shift: int = option(0, minimum=0, help="images are moved by at most this many pixels")
    flip: bool = option(False, help="every other image is mirrored")
