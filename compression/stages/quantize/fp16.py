"""IEEE 754 half precision, https://doi.org/10.1109/IEEESTD.2019.8766229."""

from dataclasses import dataclass

import numpy as np

from fedpress.compression.codec import Stage, Streams
from fedpress.compression.layout import Layout
from fedpress.compression.streams import take, values_of

_LARGEST = np.float32(65504)  # the largest finite half


@dataclass(frozen=True)
class Fp16(Stage):
    """Round to half precision: `fp16`. The relative error is 2**-11 from 6e-5 to 65504, at which values are clipped."""

    def encode(self, streams: Streams, layout: Layout, rng: np.random.Generator) -> Streams:
        values = np.clip(values_of(streams, "fp16"), -_LARGEST, _LARGEST)
        return {**streams, "values": values.astype(np.float16)}

    def decode(self, streams: Streams, layout: Layout) -> Streams:
        return {**streams, "values": take(streams, "values", np.float16).astype(np.float32)}
