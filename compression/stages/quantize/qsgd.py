"""Quantised SGD: stochastic levels of each tensor's norm, Alistarh et al. 2017, https://arxiv.org/abs/1610.02132."""

from dataclasses import dataclass

import numpy as np

from fedpress.common.errors import SpecError
from fedpress.compression.codec import Stage, Streams
from fedpress.compression.kernels.scalar_quantizer import blocks
from fedpress.compression.layout import Layout
from fedpress.compression.streams import (
    FLOAT32_MAX,
    scaled,
    take,
    take_symbols,
    tensor_bounds,
    tensor_parts,
    values_of,
    without,
)


@dataclass(frozen=True)
class Qsgd(Stage):
    """Round each value at random to one of its two neighbouring levels, without bias: `qsgd(levels)`.

    A tensor v of n values has the levels ||v|| l / levels, l from -levels to levels. The expected squared error is at
    most min(n / levels**2, sqrt(n) / levels) ||v||**2 (theorem 3.2). The paper's experiments quantize in buckets of a
    few hundred values, its theory whole tensors, as here.
    """

    levels: int

    def __post_init__(self) -> None:
        if not 1 <= self.levels <= 32767:
            raise SpecError(f"qsgd's levels must be 1 to 32767, got {self.levels}")

    @property
    def _dtype(self) -> type[np.signedinteger]:
        return np.int8 if self.levels <= 127 else np.int16

    def encode(self, streams: Streams, layout: Layout, rng: np.random.Generator) -> Streams:
        values = values_of(streams, "qsgd")
        edges = tensor_bounds(streams, layout)
        scale = np.zeros(len(layout.lossy), np.float32)  # distance between levels
        symbols = np.zeros(values.size, self._dtype)
        for t, (part, out) in enumerate(zip(tensor_parts(values, edges), tensor_parts(symbols, edges), strict=True)):
            norm = sum(float(np.square(part[block], dtype=np.float64).sum()) for block in blocks(part.size)) ** 0.5
            # Rounded up, so that no value lies beyond the last level; decoding uses the rounded one, so it is unbiased.
            nearest = np.float32(min(norm / self.levels, FLOAT32_MAX))
            scale[t] = np.nextafter(nearest, np.float32(FLOAT32_MAX))
            for block in blocks(part.size if norm else 0):
                level = np.abs(part[block].astype(np.float64)) / float(scale[t]) + rng.random(part[block].size)
                out[block] = np.copysign(np.minimum(np.floor(level), self.levels), part[block])
        return {**without(streams, "values"), "symbols": symbols, "scale": scale}

    def decode(self, streams: Streams, layout: Layout) -> Streams:
        symbols, edges = take_symbols(streams, layout, self._dtype, -self.levels, self.levels)
        values = scaled(symbols, take(streams, "scale", np.float32, len(layout.lossy)), edges)
        return {**without(streams, "symbols", "scale"), "values": values}
