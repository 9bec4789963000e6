"""Integers as a token and raw bits: exact for small ones, by octaves for large ones.

A number below 16 is its own token. A larger one has a token for its octave and the bit below its top one; the rest of
its bits are sent as they are. So any 32-bit number has one of 72 tokens, and frequent small ones stay distinct.
"""

import numpy as np
from numpy.typing import NDArray

_DIRECT = 16  # numbers below this are their own token
_OCTAVE = 4  # log2 of it
COUNT = _DIRECT + 2 * (32 - _OCTAVE)  # number of tokens


def split(numbers: NDArray[np.uint64]) -> tuple[NDArray[np.uint8], NDArray[np.uint64], NDArray[np.int64]]:
    """Return `numbers` (below 2**32) as tokens, their raw bits, and how many each has."""
    top = np.zeros(numbers.size, np.int64)  # place of the top bit
    for step in (16, 8, 4, 2, 1):
        higher = (numbers >> (top + step).astype(np.uint64)) > 0
        top[higher] += step
    large = numbers >= _DIRECT
    width = np.where(large, top - 1, 0)
    shifted = numbers >> width.astype(np.uint64)  # the top two bits of large numbers: 2 or 3
    octave = _DIRECT + 2 * (top - _OCTAVE) + (shifted.astype(np.int64) & 1)
    token = np.where(large, octave, numbers.astype(np.int64)).astype(np.uint8)
    return token, numbers & ((np.uint64(1) << width.astype(np.uint64)) - np.uint64(1)), width


def widths(token: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return how many raw bits each token has."""
    octave = (token.astype(np.int64) - _DIRECT) // 2 + _OCTAVE
    return np.where(token >= _DIRECT, octave - 1, 0)


def join(token: NDArray[np.uint8], raw: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the numbers that `split` took apart."""
    width = widths(token).astype(np.uint64)
    lead = np.uint64(2) | ((token.astype(np.uint64) - np.uint64(_DIRECT)) & np.uint64(1))
    return np.where(token >= _DIRECT, (lead << width) | raw, token.astype(np.uint64))


def fold(numbers: NDArray[np.integer]) -> NDArray[np.uint64]:
    """Return signed numbers as unsigned ones: 0, -1, 1, -2, 2 become 0, 1, 2, 3, 4."""
    wide = numbers.astype(np.int64)
    return ((wide << 1) ^ (wide >> 63)).astype(np.uint64)


def unfold(numbers: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return the signed numbers that `fold` made unsigned."""
    half = (numbers >> np.uint64(1)).astype(np.int64)
    return np.where(numbers & np.uint64(1), -half - 1, half)
