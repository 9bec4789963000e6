"""Bits of any width, packed into bytes; the first bit is the top one of the first byte."""

import numpy as np
from numpy.typing import NDArray

from fedpress.compression.errors import FrameError


def pack(numbers: NDArray[np.uint64], widths: NDArray[np.int64]) -> bytes:
    """Return the low `widths[i]` bits of each number, top bit first, one after another."""
    total = int(widths.sum())
    ends = np.cumsum(widths)
    left = np.repeat(ends, widths) - np.arange(total) - 1  # place of each bit within its number
    bits = np.repeat(numbers, widths) >> left.astype(np.uint64) & np.uint64(1)
    return np.packbits(bits.astype(np.uint8)).tobytes()


def unpack(data: bytes, widths: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return the numbers of which `pack` made `data`, uint64; raise FrameError if `data` is of another length."""
    total = int(widths.sum())
    if len(data) != (total + 7) // 8:
        raise FrameError(f"{len(data)} bytes for {total} bits")
    bits = np.unpackbits(np.frombuffer(data, np.uint8), count=total)
    numbers = np.zeros(widths.size, np.uint64)
    starts = np.cumsum(widths) - widths
    for place in range(int(widths.max(initial=0))):
        live = np.flatnonzero(widths > place)
        numbers[live] = numbers[live] << np.uint64(1) | bits[starts[live] + place].astype(np.uint64)
    return numbers
