"""Tables of the frequencies of tokens, in parts of 2**precision, and their encoding."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedpress.common.errors import FrameError
from fedpress.compression.entropy import bit_io
from fedpress.compression.frame import ByteReader, put_varint

_PRECISIONS = range(5, 15)
_BLOCK = 1 << 16  # tokens per block
_FINEST = 12  # largest precision of several tables, whose slots should stay in the cache


@dataclass(frozen=True)
class FrequencyTable:
    """Frequencies of the tokens 0 to len - 1, integers with the sum 2**precision; 0 for tokens that do not occur."""

    precision: int
    frequency: NDArray[np.int64]

    def cost(self, counts: NDArray[np.int64]) -> float:
        """Return the bits of tokens with these counts under this table."""
        counts = counts[: self.frequency.size]
        used = counts > 0
        return float((counts[used] * (self.precision - np.log2(self.frequency[used]))).sum())

    def write(self, out: bytearray) -> None:
        """Append the table: its precision, its length, and every frequency + 1 in Elias gamma code."""
        number = (self.frequency + 1).astype(np.uint64)
        width = np.floor(np.log2(number)).astype(np.int64)
        out.append(self.precision)
        put_varint(out, number.size)
        # Gamma code: as many zeros as the number has bits below its top one, then the number.
        data = bit_io.pack(number, 2 * width + 1)
        put_varint(out, len(data))
        out += data

    @classmethod
    def read(cls, reader: ByteReader, most: int) -> "FrequencyTable":
        """Return the table that `write` wrote, of at most `most` tokens; raise FrameError if the data is not valid."""
        precision = reader.byte()
        if precision not in _PRECISIONS:
            raise FrameError(f"a table's precision must be {_PRECISIONS[0]} to {_PRECISIONS[-1]}, got {precision}")
        size = reader.varint(most)
        data = np.unpackbits(np.frombuffer(reader.take(reader.varint(8 * most)), np.uint8)).tolist()
        frequency = []
        at = 0
        for _ in range(size):
            zeros = 0
            while at < len(data) and not data[at]:
                zeros, at = zeros + 1, at + 1
            digits = data[at : at + zeros + 1]
            if len(digits) != zeros + 1 or zeros > precision:
                raise FrameError("a table's frequencies must be complete")
            at += zeros + 1
            frequency.append(int("".join(map(str, digits)), 2) - 1)
        if sum(frequency) != 1 << precision:
            raise FrameError(f"a table's frequencies must add up to {1 << precision}, got {sum(frequency)}")
        return cls(precision, np.array(frequency, np.int64))


@dataclass(frozen=True)
class FrequencyTables:
    """Tables of one precision, one for each context."""

    each: tuple[FrequencyTable, ...]
    precision: int
    frequency: NDArray[np.uint32]  # (contexts, tokens)
    start: NDArray[np.uint32]  # (contexts, tokens), the sum of the frequencies before each token

    @classmethod
    def fit(cls, counts: NDArray[np.int64]) -> "FrequencyTables":
        """Return the tables of the fewest bytes for tokens with these counts, (contexts, tokens)."""
        return cls.of([fit(count, _FINEST) for count in counts])

    def write(self, out: bytearray) -> None:
        """Append the tables."""
        for table in self.each:
            table.write(out)

    @classmethod
    def read(cls, reader: ByteReader, count: int, most: int) -> "FrequencyTables":
        """Return the `count` tables, of at most `most` tokens each, that `write` wrote; raise FrameError."""
        tables = cls.of([FrequencyTable.read(reader, most) for _ in range(count)])
        if count > 1 and tables.precision > _FINEST:
            raise FrameError(f"the precision of several tables must be at most {_FINEST}, got {tables.precision}")
        return tables

    @classmethod
    def of(cls, tables: Sequence[FrequencyTable]) -> "FrequencyTables":
        """Return `tables`, one or more, at the largest precision among them."""
        precision = max(table.precision for table in tables)
        frequency = np.zeros((len(tables), max(table.frequency.size for table in tables)), np.uint32)
        for row, table in zip(frequency, tables, strict=True):
            row[: table.frequency.size] = table.frequency << (precision - table.precision)
        return cls(tuple(tables), precision, frequency, np.cumsum(frequency, axis=1, dtype=np.uint32) - frequency)

    def cost(self, tokens: NDArray[np.uint8], contexts: NDArray[np.uint8]) -> float:
        """Return the bits of `tokens` under the tables of their `contexts`."""
        bits = (self.precision - np.log2(np.maximum(self.frequency, 1))).astype(np.float32)
        blocks = (slice(first, first + _BLOCK) for first in range(0, tokens.size, _BLOCK))
        return sum(float(bits[contexts[block], tokens[block]].sum()) for block in blocks)

    def slots(self) -> tuple[NDArray[np.uint8], NDArray[np.uint32], NDArray[np.uint32]]:
        """Return token, frequency, and offset within the token's slots, of each slot: (contexts, 2**precision)."""
        contexts, size = self.frequency.shape[0], 1 << self.precision
        every = np.tile(np.arange(self.frequency.shape[1], dtype=np.uint8), contexts)
        token = np.repeat(every, self.frequency.ravel()).reshape(contexts, size)
        frequency = np.take_along_axis(self.frequency, token.astype(np.intp), axis=1)
        offset = np.arange(size, dtype=np.uint32) - np.take_along_axis(self.start, token.astype(np.intp), axis=1)
        return token, frequency, offset


def fit(counts: NDArray[np.int64], finest: int = _PRECISIONS[-1]) -> FrequencyTable:
    """Return the table of the fewest bytes for tokens with these counts, the table included."""
    counts = np.trim_zeros(counts, "b")
    least = (max(2, int(np.count_nonzero(counts))) - 1).bit_length()
    tables = [
        FrequencyTable(p, _apportion(counts, 1 << p))
        for p in _PRECISIONS
        if least <= p <= finest and p % 2 == finest % 2
    ]

    def total(table: FrequencyTable) -> float:
        return table.cost(counts) + 2 * float(np.log2(table.frequency + 1.0).sum())

    return min(tables, key=total)


def _apportion(counts: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Return frequencies in proportion to `counts`, at least 1 where a count is not 0, with the sum `total`."""
    share = counts / counts.sum() * total
    frequency = np.where(counts > 0, np.maximum(1, np.rint(share)), 0).astype(np.int64)
    while (excess := int(frequency.sum()) - total) != 0:
        # Change the tokens whose bits rise least, or fall most: they change by count / frequency.
        movable = (frequency > 1) if excess > 0 else (counts > 0)
        change = np.where(movable, counts / np.maximum(frequency, 1), np.inf if excess > 0 else -np.inf)
        token = int(np.argmin(change) if excess > 0 else np.argmax(change))
        frequency[token] -= 1 if excess > 0 else -1
    return frequency
