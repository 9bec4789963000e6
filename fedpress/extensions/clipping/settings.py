"""The settings of the bound on a round's aggregated update."""

from dataclasses import dataclass

from fedpress.common.settings import option
from fedpress.settings.extension import ExtensionSettings


@dataclass(frozen=True)
class ClippingSettings(ExtensionSettings):
    """A bound on the norm of a round's aggregated update."""

    norm: float = option(
        0.0,
        minimum=0,
        adjustable=True,
        help="largest L2 norm of a round's aggregated update; a larger one is scaled down; 0 for none",
    )

    @property
    def active(self) -> bool:
        """Whether there is a bound."""
        return self.norm > 0
