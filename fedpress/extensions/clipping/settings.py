"""The settings of the bound on a round's aggregated update."""

from dataclasses import dataclass

from fedpress.common.settings import require
from fedpress.extensions import ExtensionSettings


@dataclass(frozen=True)
class ClippingSettings(ExtensionSettings):
    """A bound on the norm of a round's aggregated update."""

    clipping_norm: float = 0.0  # largest L2 norm of a round's aggregated update; a longer one is scaled down; 0 for any

    def __post_init__(self) -> None:
        require(self.clipping_norm >= 0, "clipping_norm", "at least 0", self.clipping_norm)

    @property
    def enabled(self) -> bool:
        """Whether there is a bound."""
        return self.clipping_norm > 0
