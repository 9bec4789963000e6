"""Scaled signs, Bernstein et al. 2018, https://arxiv.org/abs/1802.04434, and Karimireddy et al. 2019 for the scale."""

from dataclasses import dataclass

import numpy as np

from fedpress.compression.codec import Stage, Streams
from fedpress.compression.layout import Layout
from fedpress.compression.streams import scaled, take, take_symbols, tensor_bounds, tensor_parts, values_of, without


@dataclass(frozen=True)
class Sign(Stage):
    """Send each value's sign, plus for zero, with its tensor's mean magnitude: `sign`, one bit per value after `pack`.

    The mean magnitude is the scale of least squared error, ||v||**2 - ||v||_1**2 / n (Karimireddy et al. 2019,
    https://arxiv.org/abs/1901.09847, with error feedback: `ef | sign | pack`). signSGD itself sends no scale.
    """

    def encode(self, streams: Streams, layout: Layout, rng: np.random.Generator) -> Streams:
        values = values_of(streams, "sign")
        scale = [
            np.abs(part).mean(dtype=np.float64) if part.size else 0
            for part in tensor_parts(values, tensor_bounds(streams, layout))
        ]
        # 0 is plus and -1 minus: one bit.
        symbols = np.negative((values < 0).view(np.int8))
        return {**without(streams, "values"), "symbols": symbols, "scale": np.array(scale, np.float32)}

    def decode(self, streams: Streams, layout: Layout) -> Streams:
        symbols, edges = take_symbols(streams, layout, np.int8, -1, 0)
        scale = take(streams, "scale", np.float32, len(layout.lossy))
        return {**without(streams, "symbols", "scale"), "values": scaled(2 * symbols + np.int8(1), scale, edges)}
