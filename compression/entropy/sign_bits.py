"""Signs of integers, one bit for each nonzero one; the initial states of the coder's lanes carry some of them."""

import numpy as np
from numpy.typing import NDArray

from fedpress.common.errors import FrameError
from fedpress.compression.entropy.bit_io import BitReader
from fedpress.compression.frame import ByteReader

_NONE, _SOME, _ALL = range(3)  # no number is negative, some are, all nonzero ones are
_BLOCK = 1 << 16


def encode(numbers: NDArray[np.integer]) -> tuple[int, bytes]:
    """Return the kind of signs of `numbers`, and their bits."""
    if numbers.min(initial=0) >= 0:
        return _NONE, b""
    if numbers.max(initial=0) <= 0:
        return _ALL, b""
    blocks = (numbers[first : first + _BLOCK] for first in range(0, numbers.size, _BLOCK))
    return _SOME, np.packbits(np.concatenate([block[block != 0] < 0 for block in blocks])).tobytes()


def apply(out: NDArray[np.integer], kind: int, carried: bytes, reader: ByteReader) -> None:
    """Apply signs to the magnitudes in `out`: first the bits that lanes `carried`, then those of `reader`."""
    if kind > (_ALL if out.dtype.kind == "i" else _NONE):
        raise FrameError(f"the kind of signs of {out.dtype.name} must be valid, got {kind}")
    count = (int(np.count_nonzero(out)) + 7) // 8 if kind == _SOME else 0
    used = min(len(carried), count // 2 * 2)
    if any(carried[used:]):
        raise FrameError("the coder must end in its initial state")
    if kind == _ALL:
        np.negative(out, out=out)
    if kind != _SOME:
        return
    bits = BitReader(carried[:used] + reader.take(count - used))
    for first in range(0, out.size, _BLOCK):
        block = out[first : first + _BLOCK]
        nonzero = np.flatnonzero(block)
        negative = np.empty(nonzero.size, np.uint8)
        bits.fixed(negative, 1)
        block[nonzero[negative == 1]] *= -1
    bits.end()
