"""The settings of coarser deltas for nodes that missed rounds."""

import math
from dataclasses import dataclass

from fedpress.common.settings import require
from fedpress.extensions import ExtensionSettings


@dataclass(frozen=True)
class CatchUpSettings(ExtensionSettings):
    """Coarser deltas for nodes that missed rounds."""

    catch_up: float = 1.0  # factor by which the steps of their deltas are larger than those of the newest delta

    def __post_init__(self) -> None:
        require(0 < self.catch_up < math.inf, "catch_up", "above 0", self.catch_up)

    @property
    def enabled(self) -> bool:
        """Whether their deltas are coded in another way than those of all others."""
        return self.catch_up != 1
