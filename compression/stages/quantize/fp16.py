"""IEEE 754 half precision, https://doi.org/10.1109/IEEESTD.2019.8766229."""

from dataclasses import dataclass

import numpy as np

from fedpress.compression.codec import Stage, Streams
from fedpress.compression.layout import Layout
from fedpress.compression.streams import take, values_of

_LARGEST = np.float32(65504)  # the largest finite half


@dataclass(frozen=True)
class Fp16(Stage):
    """`fp16`: values as halves, relative error 2**-11 between 6e-5 and 65504; larger ones are cut to that."""

    def encode(self, streams: Streams, layout: Layout, rng: np.random.Generator) -> Streams:
        values = np.clip(values_of(streams, "fp16"), -_LARGEST, _LARGEST)
        return {**streams, "values": values.astype(np.float16)}

    def decode(self, streams: Streams, layout: Layout) -> Streams:
        return {**streams, "values": take(streams, "values", np.float16).astype(np.float32)}
