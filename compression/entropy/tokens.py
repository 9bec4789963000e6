"""Integers as a token and raw bits: exact for small ones, by octaves for large ones.

A number below 16 is its own token. A larger one has a token for its octave and the bit below its top one; the rest of
its bits are sent as they are. So any 32-bit number has one of 72 tokens, and frequent small ones stay distinct.
"""

import numpy as np
from numpy.typing import NDArray

_DIRECT = 16  # numbers below this are their own token
_OCTAVE = 4  # log2 of it
COUNT = _DIRECT + 2 * (32 - _OCTAVE)  # number of tokens
_WIDTHS = np.array([0] * _DIRECT + [_OCTAVE - 1 + i // 2 for i in range(COUNT - _DIRECT)], np.int64)


def split(numbers: NDArray[np.uint64]) -> tuple[NDArray[np.uint8], NDArray[np.uint64], NDArray[np.int64]]:
    """Return `numbers` (below 2**32) as tokens, their raw bits, and how many each has."""
    token = numbers.astype(np.uint8)
    raw = np.zeros(numbers.size, np.uint64)
    width = np.zeros(numbers.size, np.int64)
    large = np.flatnonzero(numbers >= _DIRECT)  # few, as a rule
    if large.size:
        number = numbers[large]
        top = np.frexp(number.astype(np.float64))[1].astype(np.int64) - 1  # place of the top bit; exact below 2**53
        rest = (top - 1).astype(np.uint64)
        token[large] = _DIRECT + 2 * (top - _OCTAVE) + ((number >> rest).astype(np.int64) & 1)
        raw[large] = number & ((np.uint64(1) << rest) - np.uint64(1))
        width[large] = top - 1
    return token, raw, width


def widths(token: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return how many raw bits each token has."""
    return _WIDTHS[token]


def join(token: NDArray[np.uint8], raw: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the numbers that `split` took apart."""
    numbers = token.astype(np.uint64)
    large = np.flatnonzero(token >= _DIRECT)
    lead = np.uint64(2) | ((numbers[large] - np.uint64(_DIRECT)) & np.uint64(1))
    numbers[large] = (lead << widths(token[large]).astype(np.uint64)) | raw[large]
    return numbers


def fold(numbers: NDArray[np.integer]) -> NDArray[np.uint64]:
    """Return signed numbers as unsigned ones: 0, -1, 1, -2, 2 become 0, 1, 2, 3, 4."""
    top = 8 * numbers.dtype.itemsize - 1
    return ((numbers << 1) ^ (numbers >> top)).view(f"u{numbers.dtype.itemsize}").astype(np.uint64)


def unfold(numbers: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return the signed numbers that `fold` made unsigned."""
    half = (numbers >> np.uint64(1)).astype(np.int64)
    return np.where(numbers & np.uint64(1), -half - 1, half)
