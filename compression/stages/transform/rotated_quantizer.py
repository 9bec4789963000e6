"""Quantisation of rotated values to fixed levels with an unbiased scale, Vargaftik et al. 2022, https://arxiv.org/abs/2108.08842.

A block's d values, rotated and scaled to a mean square of 1, are nearly normal, so one table of levels fits all: each
value becomes the index of its nearest level. A block decodes to the scale ||x||^2 / <Rx, levels> times the levels,
rotated back, whose projection on x is x: over the random rotations the estimate is unbiased.
"""

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedpress.common.errors import FrameError
from fedpress.compression.codec import Stage, Streams
from fedpress.compression.kernels.walsh_hadamard import blocks, draw_seed, signs, transform
from fedpress.compression.layout import Layout
from fedpress.compression.streams import FLOAT32_MAX, take, tensor_bounds, values_of, without


@dataclass(frozen=True)
class RotatedQuantizer(Stage):
    """Base of quantisers of rotated blocks with one scale per block; values outside blocks stay float32.

    The scale includes the transform's 1 / sqrt(d) twice, so decoding sums levels and multiplies once. The estimate is
    unbiased for a uniformly random rotation, to which the randomised Hadamard transform is close if a block has many
    values of similar size; of only two values that are not zero, one bit loses the smaller.
    """

    @property
    @abstractmethod
    def levels(self) -> NDArray[np.float32]:
        """The levels, ascending, at most 256 of them."""

    def encode(self, streams: Streams, layout: Layout, rng: np.random.Generator) -> Streams:
        values = values_of(streams, type(self).__name__.lower())
        seed = draw_seed(streams, rng, type(self).__name__.lower())
        sign = signs(seed, values.size)
        levels = self.levels
        ends = (levels[1:] + levels[:-1]) / 2
        symbols, scale, rest = [np.zeros(0, np.uint8)], [np.zeros(0, np.float32)], np.ones(values.size, np.bool_)
        for where, size in blocks(tensor_bounds(streams, layout)):
            part = values[where].reshape(-1, size)
            _, exponent = np.frexp(np.abs(part).max(1, keepdims=True))
            unit = np.ldexp(part, -exponent)  # below 1, so that nothing overflows
            turned = transform(unit * sign[where].reshape(-1, size))  # of variance `energy`
            energy = np.square(unit).sum(1, keepdims=True)
            nonzero = energy > 0
            symbol = np.searchsorted(ends, turned / np.sqrt(np.where(nonzero, energy, 1)), side="right")
            along = (turned * levels[symbol]).sum(1, keepdims=True)
            with np.errstate(over="ignore"):
                factor = np.ldexp(energy / np.where(nonzero, along, 1), exponent)
            symbols.append(symbol.astype(np.uint8).ravel())
            scale.append(np.minimum(factor, FLOAT32_MAX).ravel())
            rest[where] = False
        return {
            **without(streams, "values"),
            "symbols": np.concatenate(symbols),
            "scale": np.concatenate(scale),
            "rest": values[rest],
            "seed": np.array([seed], np.uint32),
        }

    def decode(self, streams: Streams, layout: Layout) -> Streams:
        edges = tensor_bounds(streams, layout)
        cuts = list(blocks(edges))
        values, rest = np.empty(int(edges[-1]), np.float32), np.ones(int(edges[-1]), np.bool_)
        for where, _ in cuts:
            rest[where] = False
        left = int(rest.sum())
        symbols = take(streams, "symbols", np.uint8, values.size - left)
        scale = take(streams, "scale", np.float32, sum((where.stop - where.start) // size for where, size in cuts))
        levels = self.levels
        if symbols.size and int(symbols.max()) >= levels.size:
            raise FrameError(f"symbols must be at most {levels.size - 1}")
        if not np.isfinite(scale).all():
            raise FrameError("scales must be finite")
        values[rest] = take(streams, "rest", np.float32, left)
        sign = signs(int(take(streams, "seed", np.uint32, 1)[0]), values.size)
        at, block = 0, 0
        for where, size in cuts:
            count = (where.stop - where.start) // size
            turned = transform(levels[symbols[at : at + count * size]].reshape(count, size))
            with np.errstate(over="ignore"):
                turned *= scale[block : block + count, None]
            values[where] = np.clip(turned, -FLOAT32_MAX, FLOAT32_MAX).ravel() * sign[where]
            at, block = at + count * size, block + count
        return {**without(streams, "symbols", "scale", "rest", "seed"), "values": values}
