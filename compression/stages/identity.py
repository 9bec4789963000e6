"""No compression: float32."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedpress.compression.codec import Stage, Streams
from fedpress.compression.layout import Layout


@dataclass(frozen=True)
class Identity(Stage):
    """Send the values unchanged, float32: `none`, the baseline of every other codec."""

    lossless: ClassVar[bool] = True

    def encode(self, streams: Streams, layout: Layout, rng: np.random.Generator) -> Streams:
        return streams

    def decode(self, streams: Streams, layout: Layout) -> Streams:
        return streams
