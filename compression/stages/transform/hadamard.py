"""Rotation before quantisation, Suresh et al. 2017, https://arxiv.org/abs/1611.00429."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedpress.common.errors import FrameError
from fedpress.compression.codec import Stage, Streams
from fedpress.compression.kernels.walsh_hadamard import blocks, draw_seed, signs, transform
from fedpress.compression.layout import Layout
from fedpress.compression.streams import FLOAT32_MAX, take, tensor_bounds, values_of, without


@dataclass(frozen=True)
class Hadamard(Stage):
    """Rotate with random signs and an orthonormal Hadamard transform of each block, for a quantiser: `hadamard`.

    The largest of a block's d values becomes about sqrt(2 ln(d) / d) of its norm. Values below 1e-34 lose precision.
    The paper pads a vector to a power of two; here it is cut into blocks.
    """

    def encode(self, streams: Streams, layout: Layout, rng: np.random.Generator) -> Streams:
        values = values_of(streams, "hadamard")
        seed = draw_seed(streams, rng, "hadamard")
        rotated = _rotate(values * signs(seed, values.size), tensor_bounds(streams, layout))
        return {**streams, "values": rotated, "seed": np.array([seed], np.uint32)}

    def decode(self, streams: Streams, layout: Layout) -> Streams:
        edges = tensor_bounds(streams, layout)
        values = take(streams, "values", np.float32, int(edges[-1]))
        if not np.isfinite(values).all():
            raise FrameError("rotated values must be finite")
        seed = int(take(streams, "seed", np.uint32, 1)[0])
        back = _rotate(values, edges)
        back *= signs(seed, values.size)
        return {**without(streams, "seed"), "values": back}


def _rotate(values: NDArray[np.float32], edges: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the orthonormal transform of each block, (n,), all finite."""
    rotated = values.copy()
    for where, size in blocks(edges):
        # The first factor, exact, keeps every sum within the largest value: only the second can leave float32's range.
        sums = transform(values[where].reshape(-1, size) * np.float32(1 / size))
        with np.errstate(over="ignore"):
            rotated[where] = np.clip(sums * np.sqrt(np.float32(size)), -FLOAT32_MAX, FLOAT32_MAX).ravel()
    return rotated
