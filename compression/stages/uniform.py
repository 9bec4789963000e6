"""Uniform quantisation to b bits with one scale a tensor, Konecny et al. 2016, https://arxiv.org/abs/1610.05492."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from fedpress.compression.codec import Stage, Streams
from fedpress.compression.errors import FrameError, SpecError
from fedpress.compression.layout import Layout
from fedpress.compression.streams import bounds, take, values_of, without


@dataclass(frozen=True)
class Uniform(Stage):
    """`uniform(bits)`: each tensor's largest magnitude becomes the last of 2**(bits-1) - 1 levels each side of zero.

    The error of a value is at most half a level. One bit has no level beside zero, so there it is the sign, and the
    scale is the mean magnitude, which minimises the squared error of signs.
    """

    bits: int

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 16:
            raise SpecError(f"uniform has 1 to 16 bits, got {self.bits}")

    @property
    def _levels(self) -> int:
        return (1 << (self.bits - 1)) - 1

    @property
    def _dtype(self) -> type[np.signedinteger]:
        return np.int8 if self.bits <= 8 else np.int16

    def encode(self, streams: Streams, layout: Layout, rng: np.random.Generator) -> Streams:
        values = values_of(streams, "uniform")
        edges = bounds(streams, layout)
        scale = np.zeros(len(layout.lossy), np.float32)
        symbols = np.zeros(values.size, self._dtype)
        for t, (start, stop) in enumerate(pairwise(edges.tolist())):
            part = values[start:stop].astype(np.float64)
            if part.size == 0:
                continue
            if self.bits == 1:
                scale[t] = np.abs(part).mean()
                symbols[start:stop] = -(part < 0).astype(np.int8)  # 0 is plus, -1 minus: one bit
                continue
            scale[t] = np.abs(part).max() / self._levels
            if scale[t] > 0:
                level = np.rint(part / np.float64(scale[t]))
                symbols[start:stop] = np.clip(level, -self._levels, self._levels)
        return {**without(streams, "values"), "symbols": symbols, "scale": scale}

    def decode(self, streams: Streams, layout: Layout) -> Streams:
        symbols = take(streams, "symbols", self._dtype)
        scale = take(streams, "scale", np.float32, len(layout.lossy))
        if not np.isfinite(scale).all():
            raise FrameError("a scale is not finite")
        edges = bounds(streams, layout)
        if edges[-1] != symbols.size:
            raise FrameError(f"{symbols.size} symbols for {edges[-1]} values")
        low, high = (-1, 0) if self.bits == 1 else (-self._levels, self._levels)
        if symbols.size and not (low <= int(symbols.min()) and int(symbols.max()) <= high):
            raise FrameError(f"a symbol lies outside {low} to {high}")
        level = symbols.astype(np.float32)
        if self.bits == 1:
            level = 2 * level + 1
        with np.errstate(over="ignore"):
            values = level * np.repeat(scale, np.diff(edges))
        if not np.isfinite(values).all():
            raise FrameError("a value is beyond float32")
        return {**without(streams, "symbols", "scale"), "values": values}
