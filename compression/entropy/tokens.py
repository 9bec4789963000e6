"""Integers as a token and raw bits: exact for small ones, by parts of octaves for large ones.

A number below 2**direct is its own token. The token of a larger one is its octave and the `split` bits below its top
one; its other bits are raw. So frequent small numbers stay distinct, and 32-bit numbers have at most 168 tokens.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedpress.compression.entropy.bit_io import BitReader


@dataclass(frozen=True)
class Tokens:
    """A way to split numbers below 2**32."""

    direct: int  # log2 of the count of numbers that are their own token
    split: int  # bits below the top one that are part of the token, fewer than `direct`

    @property
    def count(self) -> int:
        """Number of tokens."""
        return (1 << self.direct) + ((32 - self.direct) << self.split)

    def tokenize(
        self, numbers: NDArray[np.unsignedinteger]
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint32], NDArray[np.uint8]]:
        """Return `numbers` as tokens, and for those that are not their own token raw bits and their width."""
        token = numbers.astype(np.uint8)
        large = np.flatnonzero(numbers >= 1 << self.direct)  # few, as a rule
        number = numbers[large]
        top = np.frexp(number.astype(np.float64))[1].astype(np.int64) - 1  # place of the top bit; exact below 2**53
        rest = (top - self.split).astype(np.uint32)
        number = number.astype(np.uint32)
        token[large] = (1 << self.direct) + ((top - self.direct - 1) << self.split) + (number >> rest)
        return token, number & ((np.uint32(1) << rest) - np.uint32(1)), rest.astype(np.uint8)

    def join(self, token: NDArray[np.uint8], raw: BitReader) -> NDArray[np.uint32]:
        """Return the numbers of these tokens, all below `count`, with the raw bits that come next."""
        numbers = token.astype(np.uint32)
        large = np.flatnonzero(token >= 1 << self.direct)
        if large.size:
            step = numbers[large] - np.uint32(1 << self.direct)
            width = (step >> np.uint32(self.split)) + np.uint32(self.direct - self.split)
            lead = np.uint32(1 << self.split) | (step & np.uint32((1 << self.split) - 1))
            numbers[large] = (lead << width) | raw.take(width)
        return numbers


def fold(numbers: NDArray[np.integer]) -> NDArray[np.unsignedinteger]:
    """Return signed numbers as unsigned ones: 0, -1, 1, -2, 2 become 0, 1, 2, 3, 4.

    Examples
    --------
    >>> fold(np.array([0, -1, 1, -2], np.int8)).tolist()
    [0, 1, 2, 3]
    """
    top = 8 * numbers.dtype.itemsize - 1
    return ((numbers << 1) ^ (numbers >> top)).view(f"u{numbers.dtype.itemsize}")


def unfold(numbers: NDArray[np.unsignedinteger]) -> NDArray[np.signedinteger]:
    """Return the signed numbers: the inverse of `fold`."""
    return ((numbers >> 1) ^ (~(numbers & 1) + 1)).view(f"i{numbers.dtype.itemsize}")
