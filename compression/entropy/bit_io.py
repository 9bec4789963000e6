"""Numbers of any width in bits, packed into bytes; the first bit is the top one of the first byte.

Reader and writer work block by block, since a bit takes a byte of memory while it is processed.
"""

import numpy as np
from numpy.typing import NDArray

from fedpress.common.errors import FrameError

_BLOCK = 1 << 15  # numbers; a multiple of 8, so that blocks of one width end at a byte


class BitWriter:
    """Appends numbers to bytes."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._left = np.zeros(0, np.uint8)  # bits that do not fill a byte yet

    def put(self, numbers: NDArray[np.unsignedinteger], widths: NDArray[np.integer] | int) -> None:
        """Append the low `widths[i]` bits of each number, top bit first."""
        for first in range(0, numbers.size, _BLOCK):
            number = numbers[first : first + _BLOCK].astype(np.uint64)
            width = np.broadcast_to(widths, numbers.shape)[first : first + _BLOCK].astype(np.int64)
            places = np.repeat(np.cumsum(width), width) - np.arange(int(width.sum())) - 1
            bits = np.repeat(number, width) >> places.astype(np.uint64) & np.uint64(1)
            bits = np.concatenate([self._left, bits.astype(np.uint8)])
            whole = bits.size // 8 * 8
            self._data += np.packbits(bits[:whole]).tobytes()
            self._left = bits[whole:]

    def end(self) -> bytes:
        """Return all bytes, the last one filled with zeros."""
        return bytes(self._data) + np.packbits(self._left).tobytes()


def pack(numbers: NDArray[np.unsignedinteger], widths: NDArray[np.integer] | int) -> bytes:
    """Return the low `widths[i]` bits of each number, top bit first, one after another."""
    writer = BitWriter()
    writer.put(numbers, widths)
    return writer.end()


class BitReader:
    """Reads numbers from the front of `data`."""

    def __init__(self, data: bytes) -> None:
        self._data = np.frombuffer(data, np.uint8)
        self._at = 0  # bits read

    def take(self, widths: NDArray[np.integer]) -> NDArray[np.uint32]:
        """Return the next numbers, each of its width, at most 32 bits; raise FrameError if the data is too short."""
        numbers = np.zeros(widths.size, np.uint32)
        for first in range(0, widths.size, _BLOCK):
            width = widths[first : first + _BLOCK].astype(np.int64)
            ends = np.cumsum(width)
            bits = self._bits(int(ends[-1]))
            number = numbers[first : first + _BLOCK]
            for place in range(int(width.max())):
                longer = np.flatnonzero(width > place)
                number[longer] = number[longer] << 1 | bits[ends[longer] - width[longer] + place]
        return numbers

    def fixed(self, out: NDArray[np.unsignedinteger], width: int) -> None:
        """Fill `out` with the next numbers, all of one width."""
        for first in range(0, out.size, _BLOCK):
            number = out[first : first + _BLOCK]
            bits = self._bits(number.size * width).reshape(number.size, width)
            number[:] = 0
            for place in range(width):
                np.left_shift(number, 1, out=number)
                np.bitwise_or(number, bits[:, place], out=number)

    def end(self) -> None:
        """Raise FrameError if a byte is left."""
        if (self._at + 7) // 8 != self._data.size:
            raise FrameError(f"{self._at} bits must fill their bytes, got {self._data.size} bytes")

    def _bits(self, count: int) -> NDArray[np.uint8]:
        first, skip = divmod(self._at, 8)
        self._at += count
        if self._at > 8 * self._data.size:
            raise FrameError(f"{self._at} bits must be in the data, got {self._data.size} bytes")
        return np.unpackbits(self._data[first : (self._at + 7) // 8])[skip : skip + count]
