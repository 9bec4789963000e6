"""How coarse the deltas of nodes that missed rounds are."""

from dataclasses import dataclass

from fedpress.common.settings import option
from fedpress.settings.extension import ExtensionSettings


@dataclass(frozen=True)
class CatchUpSettings(ExtensionSettings):
    """The quantization of deltas for nodes that missed rounds."""

    factor: float = option(1.0, above=0, help="how many times coarser their deltas are than the newest delta")

    @property
    def active(self) -> bool:
        """Whether late nodes' deltas are coded differently from those of all others."""
        return self.factor != 1
