"""What of the model is each node's own, and how nodes go on at the end: settings, checked when they are read."""

from dataclasses import dataclass

from fedpress.common.settings import require
from fedpress.extensions import ExtensionSettings

TABLE = "personal.csv"  # of what each node reached by fine-tuning


@dataclass(frozen=True)
class PersonalLayersSettings(ExtensionSettings):
    """Layers that stay on the device, and fine-tuning after the last round."""

    files = (TABLE,)

    personal: str = ""  # what stays on each node, between commas: head, norm, or patterns of names of tensors
    finetune_epochs: int = 0  # passes over its examples by which each node makes the last model its own; 0 for none
    finetune_lr: float = 0.0  # learning rate of that; 0 for lr
    finetune_share: float = 1.0  # share of the nodes that do it

    def __post_init__(self) -> None:
        for name in ("finetune_epochs", "finetune_lr"):
            require(getattr(self, name) >= 0, name, "at least 0", getattr(self, name))
        require(0 < self.finetune_share <= 1, "finetune_share", "in (0, 1]", self.finetune_share)

    @property
    def enabled(self) -> bool:
        """Whether tensors stay on the nodes, or nodes fine-tune the last model."""
        return bool(self.patterns) or self.finetune_epochs > 0

    @property
    def patterns(self) -> tuple[str, ...]:
        """Words and patterns, one by one."""
        return tuple(part for text in self.personal.split(",") if (part := text.strip()))
