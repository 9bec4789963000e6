"""Arrays of integers as bytes, in whichever of three ways is shortest.

plain    the array's bytes
dense    every number as a token
sparse   the gaps between numbers that are not zero, and those numbers, as tokens
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedpress.compression.entropy import bits, rans, tokens
from fedpress.compression.entropy.table import Table, fit
from fedpress.compression.errors import FrameError
from fedpress.compression.frame import Reader, put_head, put_varint

_PLAIN, _DENSE, _SPARSE = range(3)


def encode(array: NDArray[np.integer]) -> bytes:
    """Return `array` (n,) as bytes that `decode` reads; integers beyond 32 bits are kept as they are."""
    head = bytearray()
    plain = put_head(head, array)
    ways = {_PLAIN: float(len(plain))}
    if array.size and array.dtype.itemsize <= 4:
        numbers = tokens.fold(array) if array.dtype.kind == "i" else array.astype(np.uint64)
        dense = _Sequence.of(numbers)
        live = np.flatnonzero(numbers)
        gaps = _Sequence.of((np.diff(live, prepend=-1) - 1).astype(np.uint64))
        others = _Sequence.of(numbers[live] - np.uint64(1))
        ways[_DENSE] = dense.nbytes
        ways[_SPARSE] = gaps.nbytes + others.nbytes
    way = min(ways, key=lambda way: ways[way])
    head.append(way)
    if way == _PLAIN:
        head += plain
    elif way == _DENSE:
        dense.write(head)
    else:
        put_varint(head, live.size)
        gaps.write(head)
        others.write(head)
    return bytes(head)


def decode(data: bytes, most: int) -> NDArray[np.integer]:
    """Return the array, of at most `most` numbers, that `data` stands for; raise FrameError if it is none."""
    reader = Reader(data)
    dtype, count = reader.head(most, "iu")
    way = reader.byte()
    if way == _PLAIN:
        array = np.frombuffer(reader.take(count * dtype.itemsize), dtype)
    elif way in (_DENSE, _SPARSE) and dtype.itemsize <= 4:
        numbers = _read(reader, count) if way == _DENSE else _read_sparse(reader, count)
        whole = tokens.unfold(numbers) if dtype.kind == "i" else numbers
        limits = np.iinfo(dtype)
        if count and not (limits.min <= int(whole.min()) and int(whole.max()) <= limits.max):
            raise FrameError(f"a number is beyond {dtype.name}")
        array = whole.astype(dtype)
    else:
        raise FrameError(f"no way of coding has the number {way}")
    reader.end()
    return array


def _read_sparse(reader: Reader, count: int) -> NDArray[np.uint64]:
    live = reader.varint(count)
    gaps, others = _read(reader, live), _read(reader, live)
    at = np.cumsum(gaps.astype(np.int64) + 1) - 1
    if live and not 0 <= int(at[-1]) < count:
        raise FrameError(f"a number stands at {at[-1]} of {count}")
    numbers = np.zeros(count, np.uint64)
    numbers[at] = others + np.uint64(1)
    return numbers


@dataclass(frozen=True)
class _Sequence:
    """Numbers, split and with the table that suits them."""

    token: NDArray[np.uint8]
    raw: bytes
    table: Table | None  # none if there are no numbers
    nbytes: float  # about how many it takes

    @classmethod
    def of(cls, numbers: NDArray[np.uint64]) -> "_Sequence":
        if numbers.size == 0:
            return cls(np.zeros(0, np.uint8), b"", None, 0)
        token, raw, width = tokens.split(numbers)
        counts = np.bincount(token)
        table = fit(counts)
        packed = bits.pack(raw[width > 0], width[width > 0])
        head = bytearray()
        table.write(head)
        return cls(token, packed, table, table.cost(counts) / 8 + len(packed) + len(head) + 8)

    def write(self, out: bytearray) -> None:
        if self.table is not None:
            self.table.write(out)
            rans.encode(self.token, self.table, self.nbytes, out)
            put_varint(out, len(self.raw))
            out += self.raw


def _read(reader: Reader, count: int) -> NDArray[np.uint64]:
    if count == 0:
        return np.zeros(0, np.uint64)
    token = rans.decode(reader, count, Table.read(reader, tokens.COUNT))
    width = tokens.widths(token)
    raw = np.zeros(count, np.uint64)
    raw[width > 0] = bits.unpack(reader.take(reader.varint(4 * count)), width[width > 0])
    return tokens.join(token, raw)
