"""Affine quantisation between each tensor's least and largest value, Jacob et al. 2018, https://arxiv.org/abs/1712.05877."""

from dataclasses import dataclass

import numpy as np

from fedpress.common.errors import FrameError, SpecError
from fedpress.compression.codec import Stage, Streams
from fedpress.compression.kernels.scalar_quantizer import blocks
from fedpress.compression.layout import Layout
from fedpress.compression.streams import (
    FLOAT32_MAX,
    take,
    take_symbols,
    tensor_bounds,
    tensor_parts,
    values_of,
    without,
)


@dataclass(frozen=True)
class Affine(Stage):
    """Quantize to 2**bits levels from each tensor's least value to its largest: `affine(bits)`.

    A symbol s decodes to s * scale + offset; the error of a value is at most half a scale. Unlike in the paper, zero
    need not be a level, since nothing is computed with the integers.
    """

    bits: int

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 16:
            raise SpecError(f"affine's bits must be 1 to 16, got {self.bits}")

    @property
    def _top(self) -> int:
        return (1 << self.bits) - 1

    @property
    def _dtype(self) -> type[np.unsignedinteger]:
        return np.uint8 if self.bits <= 8 else np.uint16

    def encode(self, streams: Streams, layout: Layout, rng: np.random.Generator) -> Streams:
        values = values_of(streams, "affine")
        edges = tensor_bounds(streams, layout)
        scale, offset = np.zeros((2, len(layout.lossy)), np.float32)
        symbols = np.zeros(values.size, self._dtype)
        for t, (part, out) in enumerate(zip(tensor_parts(values, edges), tensor_parts(symbols, edges), strict=True)):
            if part.size == 0:
                continue
            offset[t] = part.min()
            scale[t] = min((float(part.max()) - float(offset[t])) / self._top, float(FLOAT32_MAX))
            for block in blocks(part.size if scale[t] > 0 else 0):
                level = (part[block].astype(np.float64) - float(offset[t])) / float(scale[t])
                out[block] = np.clip(np.rint(level), 0, self._top)
        return {**without(streams, "values"), "symbols": symbols, "scale": scale, "offset": offset}

    def decode(self, streams: Streams, layout: Layout) -> Streams:
        symbols, edges = take_symbols(streams, layout, self._dtype, 0, self._top)
        scale, offset = (take(streams, name, np.float32, len(layout.lossy)) for name in ("scale", "offset"))
        if not (np.isfinite(scale).all() and np.isfinite(offset).all()):
            raise FrameError("scales and offsets must be finite")
        values = np.empty(symbols.size, np.float32)
        for t, (part, out) in enumerate(zip(tensor_parts(symbols, edges), tensor_parts(values, edges), strict=True)):
            for block in blocks(part.size):
                level = part[block].astype(np.float64) * float(scale[t]) + float(offset[t])
                out[block] = np.clip(level, -FLOAT32_MAX, FLOAT32_MAX)
        return {**without(streams, "symbols", "scale", "offset"), "values": values}
