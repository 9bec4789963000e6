"""Tables of the frequencies of tokens, in parts of 2**precision, and their encoding."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedpress.common.errors import FrameError
from fedpress.compression.frame import ByteReader, put_varint

_PRECISIONS = range(5, 15)
_BLOCK = 1 << 16  # tokens per block
_FINEST = 12  # largest precision of several tables, whose slots should stay in the cache


@dataclass(frozen=True)
class FrequencyTable:
    """Frequencies of the tokens 0 to len - 1, integers with the sum 2**precision; 0 for tokens that do not occur."""

    precision: int
    frequency: NDArray[np.int64]

    def write(self, out: bytearray) -> None:
        """Append the table: its precision, its length, and every frequency + 1 in Elias gamma code."""
        out.append(self.precision)
        put_varint(out, self.frequency.size)
        # Gamma code: as many zeros as the number has bits below its top one, then the number.
        bits = "".join(f"{number:0{2 * number.bit_length() - 1}b}" for number in (self.frequency + 1).tolist())
        nbytes = -(-len(bits) // 8)
        put_varint(out, nbytes)
        out += int(bits.ljust(8 * nbytes, "0") or "0", 2).to_bytes(nbytes, "big")

    @classmethod
    def read(cls, reader: ByteReader, most: int) -> "FrequencyTable":
        """Return the table that `write` wrote, of at most `most` tokens; raise FrameError if the data is not valid."""
        precision = reader.byte()
        if precision not in _PRECISIONS:
            raise FrameError(f"a table's precision must be {_PRECISIONS[0]} to {_PRECISIONS[-1]}, got {precision}")
        size = reader.varint(most)
        data = reader.take(reader.varint(8 * most))
        bits = f"{int.from_bytes(data, 'big'):0{8 * len(data)}b}" if data else ""
        frequency = []
        at = 0
        for _ in range(size):
            top = bits.find("1", at)
            end = 2 * top - at + 1  # as many zeros as the number has bits below its top one
            if top < 0 or end > len(bits) or top - at > precision:
                raise FrameError("a table's frequencies must be complete")
            frequency.append(int(bits[top:end], 2) - 1)
            at = end
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
        return cls.of(fit(counts, _FINEST))

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

    def tokens(self) -> NDArray[np.uint8]:
        """Return the token of each slot, (contexts, 2**precision)."""
        contexts, count = self.frequency.shape
        every = np.tile(np.arange(count, dtype=np.uint8), contexts)
        return np.repeat(every, self.frequency.ravel()).reshape(contexts, 1 << self.precision)

    def slots(self) -> tuple[NDArray[np.uint8], NDArray[np.uint32], NDArray[np.uint32]]:
        """Return token, frequency, and offset within the token's slots, of each slot: (contexts, 2**precision)."""
        token = self.tokens()
        frequency = np.take_along_axis(self.frequency, token.astype(np.intp), axis=1)
        offset = np.arange(token.shape[1], dtype=np.uint32) - np.take_along_axis(
            self.start, token.astype(np.intp), axis=1
        )
        return token, frequency, offset


def fit(counts: NDArray[np.int64], finest: int = _PRECISIONS[-1]) -> list[FrequencyTable]:
    """Return the tables of the fewest bytes for tokens with these counts, (contexts, tokens), tables included."""
    choices = [
        (context, precision)
        for context, kinds in enumerate(np.count_nonzero(counts, axis=1).tolist())
        for precision in _PRECISIONS
        if (max(2, kinds) - 1).bit_length() <= precision <= finest and precision % 2 == finest % 2
    ]
    contexts, precisions = np.array(choices).T
    count = counts[contexts]
    frequency = _apportion(count, 1 << precisions)
    bits = precisions[:, None] - np.log2(np.maximum(frequency, 1))
    cost = (count * bits).sum(axis=1) + 2 * np.log2(frequency + 1.0).sum(axis=1)
    tables = []
    for context in range(len(counts)):
        of_context = np.flatnonzero(contexts == context)
        best = of_context[np.argmin(cost[of_context])]
        tables.append(FrequencyTable(int(precisions[best]), np.trim_zeros(frequency[best], "b")))
    return tables


def _apportion(counts: NDArray[np.int64], total: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return frequencies in proportion to each row of `counts`, at least 1 where it is not 0, with sums `total`."""
    share = counts / counts.sum(axis=1, keepdims=True) * total[:, None]
    frequency = np.where(counts > 0, np.maximum(1, np.rint(share)), 0).astype(np.int64)
    rows = np.arange(len(counts))
    while (change := np.sign(frequency.sum(axis=1) - total)).any():
        # Change the tokens whose bits rise least, or fall most: they change by count / frequency.
        movable = np.where(change[:, None] > 0, frequency > 1, counts > 0)
        rise = np.where(movable, change[:, None] * counts / np.maximum(frequency, 1), np.inf)
        frequency[rows, rise.argmin(axis=1)] -= change
    return frequency
