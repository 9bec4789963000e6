"""TernGrad: stochastic ternary values, Wen et al. 2017, https://arxiv.org/abs/1705.07878."""

from dataclasses import dataclass, field

import numpy as np

from fedpress.common.errors import SpecError
from fedpress.compression.codec import Stage, Streams
from fedpress.compression.kernels.scalar_quantizer import blocks, peak_of
from fedpress.compression.layout import Layout
from fedpress.compression.streams import scaled, take, take_symbols, tensor_bounds, tensor_parts, values_of, without


@dataclass(frozen=True)
class Ternary(Stage):
    """Round each value at random to minus, zero or plus its tensor's largest magnitude s, without bias: `ternary`.

    A value v becomes s sign(v) with probability abs(v) / s, else zero. `clip` first clips each tensor's values to this
    number of its standard deviations, 2.5 in the paper: less noise for some bias.
    """

    clip: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.clip is not None and not 0 < self.clip < np.inf:
            raise SpecError(f"ternary's clip must be above 0 and finite, got {self.clip}")

    def encode(self, streams: Streams, layout: Layout, rng: np.random.Generator) -> Streams:
        values = values_of(streams, "ternary")
        edges = tensor_bounds(streams, layout)
        scale = np.zeros(len(layout.lossy), np.float32)
        symbols = np.zeros(values.size, np.int8)
        for t, (part, out) in enumerate(zip(tensor_parts(values, edges), tensor_parts(symbols, edges), strict=True)):
            scale[t] = peak_of(part)
            if self.clip is not None and part.size:
                scale[t] = min(scale[t], self.clip * part.std(dtype=np.float64) or scale[t])
            for block in blocks(part.size if scale[t] > 0 else 0):
                draw = rng.random(part[block].size) * float(scale[t])
                out[block] = np.where(np.abs(part[block]) > draw, np.sign(part[block]), 0)
        return {**without(streams, "values"), "symbols": symbols, "scale": scale}

    def decode(self, streams: Streams, layout: Layout) -> Streams:
        symbols, edges = take_symbols(streams, layout, np.int8, -1, 1)
        values = scaled(symbols, take(streams, "scale", np.float32, len(layout.lossy)), edges)
        return {**without(streams, "symbols", "scale"), "values": values}
