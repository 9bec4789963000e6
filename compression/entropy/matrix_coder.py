"""Integers of matrices under contexts: static tables by levels of row and column (`row_column_contexts`).

Cells whose classes share tables are a group. A dense group codes every cell's magnitude; a sparse one the gaps between
its nonzero cells, and their magnitudes minus 1. Cells of class 0 take no bits. Signs are sent as bits.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedpress.common.errors import FrameError
from fedpress.compression.entropy import bit_io, list_coder, rans, row_column_contexts, sign_bits
from fedpress.compression.entropy.context_classes import CLASSES, Numbers, Shape
from fedpress.compression.entropy.context_clustering import ContextGroups
from fedpress.compression.entropy.frequency_tables import FrequencyTables
from fedpress.compression.entropy.row_column_contexts import RowColumnLevels
from fedpress.compression.entropy.tokens import Tokens
from fedpress.compression.frame import ByteReader, put_varint

TOKENS = Tokens(direct=6, split=2)
_ZEROS = 0.7  # share of zeros from which a group codes gaps: fewer tokens at about the same bits
_DENSE, _SPARSE, _ONES = range(3)  # kinds of groups; _ONES is sparse, and all magnitudes are 1
_BLOCK = 1 << 16  # numbers per block


def encode(numbers: NDArray[np.integer], shapes: Sequence[Shape]) -> bytes:
    """Return `numbers`, the cells of matrices of these shapes in C order, as bytes for `decode`."""
    sign, spare = sign_bits.encode(numbers)
    fitted = row_column_contexts.fit(numbers, shapes)
    groups, counts = ContextGroups.fit(_counts(numbers, fitted))
    kinds = [_kind(count) for count in counts]
    found: list[int] = []
    parts: list[tuple[int, NDArray[np.uint8]]] = []
    raw = bit_io.BitWriter()
    for context, number in _parts(numbers, fitted, groups, kinds, found):
        for first in range(0, number.size, _BLOCK):
            token, rest, width = TOKENS.tokenize(number[first : first + _BLOCK])
            raw.put(rest, width)
            parts.append((context, token))
    out = bytearray()
    fitted.write(out)
    groups.write(out)
    out += bytes(kinds)
    out += list_coder.encode(np.array(found, np.uint32))
    out.append(sign)
    of_context = np.zeros((2 * len(kinds), TOKENS.count), np.int64)
    for context, token in parts:
        of_context[context] += np.bincount(token, minlength=TOKENS.count)
    used_contexts = np.flatnonzero(of_context.any(axis=1))
    used = 0
    if used_contexts.size:
        tables = FrequencyTables.fit(of_context[used_contexts])
        tables.write(out)
        place = np.searchsorted(used_contexts, [part[0] for part in parts]).astype(np.uint8)
        contexts = np.repeat(place, [part[1].size for part in parts])
        used = rans.encode(np.concatenate([part[1] for part in parts]), contexts, tables, spare, out)
        packed = raw.end()
        put_varint(out, len(packed))
        out += packed
    return bytes(out) + spare[used:]


def decode(reader: ByteReader, shapes: Sequence[Shape], out: NDArray[np.integer]) -> None:
    """Fill `out` (n,), zeros, with the numbers that were encoded; raise FrameError if the data is not valid."""
    fitted = RowColumnLevels.read(reader, shapes)
    groups = ContextGroups.read(reader)
    kinds = list(reader.take(groups.last.size))
    if any(kind > _ONES for kind in kinds):
        raise FrameError(f"the kind of a group must be at most {_ONES}")
    segments = [
        (chunk, group, count)
        for chunk, (_, classes) in enumerate(fitted.chunks())
        for group, count in enumerate(np.bincount(groups.of(classes), minlength=256)[: len(kinds)].tolist())
        if count
    ]
    found = iter(list_coder.decode(reader, sum(kinds[group] != _DENSE for _, group, _ in segments)).tolist())
    sizes = [count if kinds[group] == _DENSE else next(found) for _, group, count in segments]
    if any(size > count for size, (_, _, count) in zip(sizes, segments, strict=True)):
        raise FrameError("a group must have at least as many cells as nonzero ones")
    sign = reader.byte()
    runs = [
        (2 * group + more, size)
        for size, (_, group, _) in zip(sizes, segments, strict=True)
        for more in range(2 if kinds[group] == _SPARSE else 1)
        if size
    ]
    carried = b""
    if runs:
        used_contexts = sorted({context for context, _ in runs})
        tables = FrequencyTables.read(reader, len(used_contexts), TOKENS.count)
        place = np.searchsorted(used_contexts, [context for context, _ in runs]).astype(np.uint8)
        token, carried = rans.decode(reader, place, np.array([size for _, size in runs]), tables)
        coded = _Coded(token, bit_io.BitReader(reader.take(reader.varint(4 * token.size))))
        by_chunk: dict[int, list[tuple[int, int]]] = {}
        for size, (chunk, group, _) in zip(sizes, segments, strict=True):
            by_chunk.setdefault(chunk, []).append((group, size))
        for chunk, (first, classes) in enumerate(fitted.chunks()):
            part = out[first : first + classes.size]
            _fill(part, kinds, groups.of(classes), by_chunk.get(chunk, []), coded)
        coded.raw.end()
    sign_bits.apply(out, sign, carried, reader)


def _counts(numbers: NDArray[np.integer], fitted: RowColumnLevels) -> NDArray[np.int64]:
    """Return the count of each magnitude, 16 or more as one, in each class, (CLASSES, 17)."""
    counts = np.zeros((CLASSES, 17), np.int64)
    for first, classes in fitted.chunks():
        part = numbers[first : first + classes.size]
        nonzero = np.flatnonzero(part)
        token = np.minimum(np.abs(part[nonzero].astype(np.int32)), 16)
        count = np.bincount(classes[nonzero] * np.int32(17) + token, minlength=counts.size).reshape(counts.shape)
        count[:, 0] = np.bincount(classes, minlength=CLASSES) - count.sum(axis=1)
        counts += count
    counts[0] = 0
    return counts


def _kind(counts: NDArray[np.int64]) -> int:
    """Return the kind of a group with these counts of magnitudes."""
    if counts[0] < _ZEROS * counts.sum():
        return _DENSE
    return _SPARSE if counts[2:].any() else _ONES


def _parts(
    numbers: NDArray[np.integer], fitted: RowColumnLevels, groups: ContextGroups, kinds: list[int], found: list[int]
) -> Iterator[tuple[int, Numbers]]:
    """Yield context and numbers of each part, in order, and append to `found`."""
    for first, classes in fitted.chunks():
        of_cell = groups.of(classes)
        part = numbers[first : first + classes.size]
        magnitude = np.abs(part).view(f"u{part.dtype.itemsize}")
        for group in np.flatnonzero(np.bincount(of_cell, minlength=256)[: len(kinds)]).tolist():
            cells = np.flatnonzero(of_cell == group)
            number = magnitude[cells]
            if kinds[group] == _DENSE:
                yield 2 * group, number
                continue
            rank = np.flatnonzero(number)
            found.append(rank.size)
            yield 2 * group, (np.diff(rank, prepend=-1) - 1).astype(np.uint32)
            if kinds[group] == _SPARSE:
                yield 2 * group + 1, number[rank] - number.dtype.type(1)


@dataclass
class _Coded:
    """Tokens and raw bits, read from front to back."""

    token: NDArray[np.uint8]
    raw: bit_io.BitReader
    at: int = 0

    def blocks(self, size: int) -> Iterator[tuple[slice, NDArray[np.uint32]]]:
        """Yield the next `size` numbers block by block, and the slice of each block among them."""
        for first in range(0, size, _BLOCK):
            last = min(size, first + _BLOCK)
            yield slice(first, last), TOKENS.join(self.token[self.at + first : self.at + last], self.raw)
        self.at += size


def _fill(
    out: NDArray[np.integer],
    kinds: list[int],
    of_cell: NDArray[np.uint8],
    sizes: list[tuple[int, int]],
    coded: _Coded,
) -> None:
    """Fill the cells of one chunk with their magnitudes."""
    for group, size in sizes:
        cells = np.flatnonzero(of_cell == group)
        if kinds[group] != _DENSE:
            cells = _nonzero(cells, size, coded)
        if kinds[group] == _ONES:
            out[cells] = 1
            continue
        least = int(kinds[group] == _SPARSE)
        for block, number in coded.blocks(size):
            if int(number.max()) > np.iinfo(out.dtype).max - least:
                raise FrameError(f"a number must fit {out.dtype.name}")
            out[cells[block]] = number + np.uint32(least)


def _nonzero(cells: NDArray[np.int64], size: int, coded: _Coded) -> NDArray[np.int64]:
    """Return the nonzero cells of a group."""
    rank = np.empty(size, np.int64)
    last = -1
    for block, gap in coded.blocks(size):
        rank[block] = np.cumsum(gap.astype(np.int64) + 1) + last
        last = int(rank[block][-1])
    if last >= cells.size:
        raise FrameError(f"positions of numbers must be below {cells.size}, got {last}")
    return cells[rank]
