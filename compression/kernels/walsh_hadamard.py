"""The randomised Hadamard rotation in blocks, Suresh et al. 2017, https://arxiv.org/abs/1611.00429.

A rotated vector's values are all of about one size, nearly normal, whatever they were before: what a quantiser likes.
Rotating a whole model means padding it to a power of two, 26 to 50 % of it; here every tensor is cut into blocks of
2**13 values, then one of each smaller power of two that its rest holds, down to 2**4. What is left, at most 15 values
of a tensor, is not rotated, and nothing is padded.

The transform is additions and subtractions of pairs, float32, elementwise, in an order that its definition fixes: the
same bits on every machine.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fedpress.common.errors import SpecError
from fedpress.common.rng import shared
from fedpress.compression.codec import Streams

_LARGEST, _LEAST = 13, 4  # a block has 2**13 to 2**4 values
_CHUNK = 1 << 17  # values that are rotated at once: half a megabyte stays in a cache


def blocks(edges: NDArray[np.int64]) -> Iterator[tuple[slice, int]]:
    """Return the blocks of the tensors between `edges`, (t + 1,): neighbours of one size at once, and that size."""
    for start, stop in pairwise(edges.tolist()):
        at = start
        for size in (1 << power for power in range(_LARGEST, _LEAST - 1, -1)):
            end = at + (stop - at) // size * size
            for first in range(at, end, _CHUNK):
                yield slice(first, min(first + _CHUNK, end)), size
            at = end


def transform(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return Sylvester's Hadamard matrix times each of the vectors, (m, size); it is its own inverse but for 1 / size.

    A sum of pairs and a difference of pairs, side by side, as often as the size is a power of two.
    """
    half = vectors.shape[1] // 2
    for _ in range(half.bit_length()):
        first, second = vectors[:, 0::2], vectors[:, 1::2]
        vectors = np.empty_like(vectors)
        np.add(first, second, out=vectors[:, :half])
        np.subtract(first, second, out=vectors[:, half:])
    return vectors


def signs(seed: int, count: int) -> NDArray[np.int8]:
    """Return `count` random signs, 1 and -1, that both ends get from `seed`: the bits of its words, low ones first."""
    words = shared(seed, -(-count // 64)).astype("<u8")
    bits = np.unpackbits(words.view(np.uint8), count=count, bitorder="little").view(np.int8)
    return np.subtract(1, 2 * bits, dtype=np.int8)


def draw_seed(streams: Streams, rng: np.random.Generator, stage: str) -> int:
    """Return a fresh seed, below 2**32; raise SpecError if the values are rotated already."""
    if "seed" in streams:
        raise SpecError(f"{stage} cannot follow another rotation")
    return int(rng.integers(1 << 32))
