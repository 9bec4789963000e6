"""Lists of numbers under one table each: what is sent ahead of everything else, and so has no context yet."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedpress.common.errors import FrameError
from fedpress.compression.entropy import bit_io, rans
from fedpress.compression.entropy.frequency_tables import FrequencyTable, FrequencyTables, fit
from fedpress.compression.entropy.tokens import Tokens
from fedpress.compression.frame import ByteReader, put_varint

TOKENS = Tokens(direct=4, split=1)  # short lists: a table of few tokens
_PLAIN, _CODED = range(2)


def encode(numbers: NDArray[np.unsignedinteger]) -> bytes:
    """Return `numbers`, below 2**32, as bytes for `decode`, which is told how many there are; none are no bytes."""
    if numbers.size == 0:
        return b""
    width = int(numbers.max()).bit_length()
    plain = bytes([_PLAIN, width]) + bit_io.pack(numbers, width)
    coded = bytearray([_CODED])
    EncodedList.of(numbers.astype(np.uint32)).write(coded)
    return min(plain, bytes(coded), key=len)


def decode(reader: ByteReader, count: int) -> NDArray[np.uint32]:
    """Return the `count` numbers that come next; raise FrameError if they do not."""
    numbers = np.zeros(count, np.uint32)
    if count == 0:
        return numbers
    way = reader.byte()
    if way == _PLAIN:
        width = reader.varint(32)
        packed = bit_io.BitReader(reader.take((count * width + 7) // 8))
        packed.fixed(numbers, width)
    elif way == _CODED:
        coded = ListReader.of(reader, count)
        numbers = coded.block(0, count)
        coded.end()
    else:
        raise FrameError(f"no way of coding a list has the number {way}")
    return numbers


@dataclass(frozen=True)
class EncodedList:
    """Numbers, taken apart, and the table that suits them."""

    token: NDArray[np.uint8]
    raw: bytes
    table: FrequencyTable | None  # none if there are no numbers

    @classmethod
    def of(cls, numbers: NDArray[np.uint32]) -> "EncodedList":
        """Return `numbers` taken apart."""
        if numbers.size == 0:
            return cls(np.zeros(0, np.uint8), b"", None)
        token, raw, width = TOKENS.take_apart(numbers)
        return cls(token, bit_io.pack(raw, width), fit(np.bincount(token)))

    def write(self, out: bytearray) -> None:
        """Append table, tokens and raw bits."""
        if self.table is None:
            return
        self.table.write(out)
        rans.encode(self.token, np.zeros(self.token.size, np.uint8), FrequencyTables.of([self.table]), b"", out)
        put_varint(out, len(self.raw))
        out += self.raw


@dataclass(frozen=True)
class ListReader:
    """Tokens that were read, and raw bits to join to them, block by block from the first on."""

    token: NDArray[np.uint8]
    raw: bit_io.BitReader

    @classmethod
    def of(cls, reader: ByteReader, count: int) -> "ListReader":
        """Return the next `count` numbers, as `EncodedList` wrote them."""
        if count == 0:
            return cls(np.zeros(0, np.uint8), bit_io.BitReader(b""))
        tables = FrequencyTables.of([FrequencyTable.read(reader, TOKENS.count)])
        token, spare = rans.decode(reader, np.zeros(1, np.uint8), np.array([count]), tables)
        if any(spare):
            raise FrameError("the coder does not end where it began")
        return cls(token, bit_io.BitReader(reader.take(reader.varint(4 * count))))

    def block(self, first: int, size: int) -> NDArray[np.uint32]:
        """Return the numbers from `first` on, the first that have not been joined yet, at most `size`."""
        return TOKENS.join(self.token[first : first + size], self.raw)

    def end(self) -> None:
        """Raise FrameError if raw bits are left."""
        self.raw.end()
