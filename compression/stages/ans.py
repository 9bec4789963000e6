"""Entropy coding with asymmetric numeral systems, Duda 2013, https://arxiv.org/abs/1311.2540."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedpress.compression.codec import Stage, Streams
from fedpress.compression.entropy import integers
from fedpress.compression.layout import Layout
from fedpress.compression.streams import take


@dataclass(frozen=True)
class Ans(Stage):
    """`ans`: every stream of integers in about as many bits as its order-zero entropy; floats stay as they are."""

    lossless: ClassVar[bool] = True

    def encode(self, streams: Streams, layout: Layout, rng: np.random.Generator) -> Streams:
        return {
            name: np.frombuffer(integers.encode(array), np.uint8) if array.dtype.kind in "iu" else array
            for name, array in streams.items()
        }

    def decode(self, streams: Streams, layout: Layout) -> Streams:
        most = layout.longest
        return {
            name: integers.decode(take(streams, name, np.uint8).tobytes(), most) if array.dtype.kind in "iu" else array
            for name, array in streams.items()
        }
