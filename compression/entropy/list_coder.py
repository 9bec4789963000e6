"""Lists of numbers, each under one table: the parameters of coders, which are sent first."""

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
_LEAST_CODED = 12  # bytes of the shortest list with a table


def encode(numbers: NDArray[np.unsignedinteger]) -> bytes:
    """Return `numbers`, below 2**32, as bytes for `decode`, given their count; empty for an empty list."""
    if numbers.size == 0:
        return b""
    width = int(numbers.max()).bit_length()
    plain = bytes([_PLAIN, width]) + bit_io.pack(numbers, width)
    if len(plain) <= _LEAST_CODED:
        return plain
    coded = bytearray([_CODED])
    EncodedList.of(numbers.astype(np.uint32)).write(coded)
    return min(plain, bytes(coded), key=len)


def decode(reader: ByteReader, count: int) -> NDArray[np.uint32]:
    """Return the `count` numbers that were encoded; raise FrameError if the data is not valid."""
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
        raise FrameError(f"the coding of a list must be 0 or 1, got {way}")
    return numbers


@dataclass(frozen=True)
class EncodedList:
    """Numbers as tokens and raw bits, and the table of the tokens."""

    token: NDArray[np.uint8]
    raw: bytes
    table: FrequencyTable | None  # None for an empty list

    @classmethod
    def of(cls, numbers: NDArray[np.uint32]) -> "EncodedList":
        """Return the encoding of `numbers`."""
        if numbers.size == 0:
            return cls(np.zeros(0, np.uint8), b"", None)
        token, raw, width = TOKENS.tokenize(numbers)
        return cls(token, bit_io.pack(raw, width), fit(np.bincount(token)[None])[0])

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
    """Decoded tokens, and raw bits that are joined to them block by block."""

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
            raise FrameError("the coder must end in its initial state")
        return cls(token, bit_io.BitReader(reader.take(reader.varint(4 * count))))

    def block(self, first: int, size: int) -> NDArray[np.uint32]:
        """Return at most `size` numbers from `first` on; calls must be in order."""
        return TOKENS.join(self.token[first : first + size], self.raw)

    def end(self) -> None:
        """Raise FrameError if raw bits are left."""
        self.raw.end()
