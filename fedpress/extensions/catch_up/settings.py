"""How coarse the deltas of nodes that missed rounds are."""

from dataclasses import dataclass

from fedpress.common.settings import option
from fedpress.settings.extension import ExtensionSettings


@dataclass(frozen=True)
class CatchUpSettings(ExtensionSettings):
    """The quantization of deltas for nodes that missed rounds."""

    factor: float = option(1.0, above=0, help="factor on the quantizer step of deltas to nodes that missed rounds")

    @property
    def active(self) -> bool:
        """Whether deltas to nodes that missed rounds use a coarser quantizer than others."""
        return self.factor != 1
