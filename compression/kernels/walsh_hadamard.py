"""The randomised Hadamard rotation in blocks, Suresh et al. 2017, https://arxiv.org/abs/1611.00429.

A rotated vector's values are nearly normal, of similar magnitude, which suits a quantiser. To rotate a whole model, it
would have to be padded to a power of two, by 26 to 50 %; here every tensor is cut into blocks of 2**13 values, then
one of each smaller power of two that fits the rest, down to 2**4. The last values, at most 15, are not rotated.

The transform adds and subtracts pairs, float32, elementwise, in a fixed order: the same bits on every machine.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fedpress.common.errors import SpecError
from fedpress.common.rng import shared
from fedpress.compression.codec import Streams

_LARGEST, _LEAST = 13, 4  # a block has 2**13 to 2**4 values
_CHUNK = 1 << 17  # values that are rotated at once, to stay in the cache


def blocks(edges: NDArray[np.int64]) -> Iterator[tuple[slice, int]]:
    """Yield slices of neighbouring blocks of one size, and that size, of the tensors between `edges`, (t + 1,)."""
    for start, stop in pairwise(edges.tolist()):
        at = start
        for size in (1 << power for power in range(_LARGEST, _LEAST - 1, -1)):
            end = at + (stop - at) // size * size
            for first in range(at, end, _CHUNK):
                yield slice(first, min(first + _CHUNK, end)), size
            at = end


def transform(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return Sylvester's Hadamard matrix times each of the vectors, (m, size): its own inverse up to 1 / size.

    Examples
    --------
    >>> transform(np.array([[1, 2, 3, 4]], np.float32)).tolist()
    [[10.0, -2.0, -4.0, 0.0]]
    """
    half = vectors.shape[1] // 2
    for _ in range(half.bit_length()):
        first, second = vectors[:, 0::2], vectors[:, 1::2]
        vectors = np.empty_like(vectors)
        np.add(first, second, out=vectors[:, :half])
        np.subtract(first, second, out=vectors[:, half:])
    return vectors


def signs(seed: int, count: int) -> NDArray[np.int8]:
    """Return `count` random signs, 1 and -1, from the bits of the words of `seed`, low ones first."""
    words = shared(seed, -(-count // 64)).astype("<u8")
    bits = np.unpackbits(words.view(np.uint8), count=count, bitorder="little").view(np.int8)
    return np.subtract(1, 2 * bits, dtype=np.int8)


def draw_seed(streams: Streams, rng: np.random.Generator, stage: str) -> int:
    """Return a new seed, below 2**32; raise SpecError if the values are already rotated."""
    if "seed" in streams:
        raise SpecError(f"{stage} cannot follow another rotation")
    return int(rng.integers(1 << 32))
