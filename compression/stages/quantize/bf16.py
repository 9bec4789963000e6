"""Brain floating point, 16 bits, Kalamkar et al. 2019, https://arxiv.org/abs/1905.12322."""

from dataclasses import dataclass

import numpy as np

from fedpress.common.errors import FrameError
from fedpress.compression.codec import Stage, Streams
from fedpress.compression.layout import Layout
from fedpress.compression.streams import take, values_of

_LARGEST = 0x7F7F  # the largest finite one
_SIGN = 0x8000


@dataclass(frozen=True)
class Bf16(Stage):
    """Round to bfloat16, 8 bits of exponent and 7 of fraction: `bf16`. The relative error is at most 2**-8."""

    def encode(self, streams: Streams, layout: Layout, rng: np.random.Generator) -> Streams:
        bits = values_of(streams, "bf16").view(np.uint32)
        half = (bits >> 16) & 1  # a tie goes to the even one
        top = ((bits + (np.uint32(0x7FFF) + half)) >> 16).astype(np.uint16)
        return {**streams, "values": np.minimum(top & ~np.uint16(_SIGN), _LARGEST) | (top & np.uint16(_SIGN))}

    def decode(self, streams: Streams, layout: Layout) -> Streams:
        top = take(streams, "values", np.uint16)
        if ((top & ~np.uint16(_SIGN)) > _LARGEST).any():
            raise FrameError("values must be finite")
        return {**streams, "values": (top.astype(np.uint32) << 16).view(np.float32)}
