"""The quantiser of sparse ternary compression, Sattler et al. 2019, https://arxiv.org/abs/1903.02891."""

from dataclasses import dataclass

import numpy as np

from fedpress.common.errors import FrameError
from fedpress.compression.codec import Stage, Streams
from fedpress.compression.layout import Layout
from fedpress.compression.streams import take, values_of, without


@dataclass(frozen=True)
class Ternarise(Stage):
    """Send each value's sign with the mean magnitude of all values: `ternarise`.

    After a sparsifier the mean is that of the kept values. It is one for the whole update, as in the paper's text; the
    paper's code has one for each tensor.
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
            raise FrameError("scales must be finite")
        if symbols.size and not (int(symbols.min()) >= -1 and int(symbols.max()) <= 1):
            raise FrameError("symbols must be -1 to 1")
        return {**without(streams, "symbols", "scale"), "values": symbols.astype(np.float32) * scale}
