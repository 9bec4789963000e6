"""Uniform quantisation to b bits with one scale a tensor, Konecny et al. 2016, https://arxiv.org/abs/1610.05492."""

from dataclasses import dataclass

import numpy as np

from fedpress.common.errors import SpecError
from fedpress.compression.codec import Stage, Streams
from fedpress.compression.kernels.scalar_quantizer import blocks, peak_of
from fedpress.compression.layout import Layout
from fedpress.compression.stages.quantize.sign import Sign
from fedpress.compression.streams import scaled, take, take_symbols, tensor_bounds, tensor_parts, values_of, without


@dataclass(frozen=True)
class Uniform(Stage):
    """Quantize to 2**(bits - 1) - 1 levels each side of zero, the last one each tensor's peak: `uniform(bits)`.

    The error of a value is at most half the distance of levels. With one bit it is `sign`.
    """

    bits: int

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 16:
            raise SpecError(f"uniform's bits must be 1 to 16, got {self.bits}")

    @property
    def _levels(self) -> int:
        return (1 << (self.bits - 1)) - 1

    @property
    def _dtype(self) -> type[np.signedinteger]:
        return np.int8 if self.bits <= 8 else np.int16

    def encode(self, streams: Streams, layout: Layout, rng: np.random.Generator) -> Streams:
        values = values_of(streams, "uniform")
        if self.bits == 1:
            return Sign().encode(streams, layout, rng)
        edges = tensor_bounds(streams, layout)
        scale = np.zeros(len(layout.lossy), np.float32)
        symbols = np.zeros(values.size, self._dtype)
        for t, (part, out) in enumerate(zip(tensor_parts(values, edges), tensor_parts(symbols, edges), strict=True)):
            scale[t] = peak_of(part) / self._levels
            for block in blocks(part.size if scale[t] > 0 else 0):
                level = np.rint(part[block] / np.float64(scale[t]))
                out[block] = np.clip(level, -self._levels, self._levels)
        return {**without(streams, "values"), "symbols": symbols, "scale": scale}

    def decode(self, streams: Streams, layout: Layout) -> Streams:
        if self.bits == 1:
            return Sign().decode(streams, layout)
        symbols, edges = take_symbols(streams, layout, self._dtype, -self._levels, self._levels)
        values = scaled(symbols, take(streams, "scale", np.float32, len(layout.lossy)), edges)
        return {**without(streams, "symbols", "scale"), "values": values}
