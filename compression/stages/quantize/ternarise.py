"""The quantiser of sparse ternary compression, Sattler et al. 2019, https://arxiv.org/abs/1903.02891."""

from dataclasses import dataclass

import numpy as np

from fedpress.common.errors import FrameError
from fedpress.compression.codec import Stage, Streams
from fedpress.compression.layout import Layout
from fedpress.compression.streams import take, values_of, without


@dataclass(frozen=True)
class Ternarise(Stage):
    """`ternarise`: every value becomes its sign times the mean magnitude of all of them, over the whole update.

    After a sparsifier, so that the mean is of the kept values. The paper's code takes one mean for each tensor, its
    text one for the flattened update: this is the text's.
    """

    def encode(self, streams: Streams, layout: Layout, rng: np.random.Generator) -> Streams:
        values = values_of(streams, "ternarise")
        mean = np.abs(values).sum(dtype=np.float64) / max(1, values.size)
        return {
            **without(streams, "values"),
            "symbols": np.sign(values).astype(np.int8),
            "scale": np.array([mean], np.float32),
        }

    def decode(self, streams: Streams, layout: Layout) -> Streams:
        symbols = take(streams, "symbols", np.int8)
        (scale,) = take(streams, "scale", np.float32, 1)
        if not np.isfinite(scale):
            raise FrameError("a scale is not finite")
        if symbols.size and not (int(symbols.min()) >= -1 and int(symbols.max()) <= 1):
            raise FrameError("a symbol lies outside -1 to 1")
        return {**without(streams, "symbols", "scale"), "values": symbols.astype(np.float32) * scale}
