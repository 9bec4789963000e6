"""Integers of matrices under contexts: static tables by scale of row and column (`scales`), coded in one go.

Cells whose classes share tables are a group. A dense group codes every cell's magnitude; a sparse one the gaps between
its cells that are not zero, and their magnitudes less 1. Cells of class 0 cost nothing. Signs are sent as they are.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fedpress.compression.entropy import bits, lists, rans, scales
from fedpress.compression.entropy.scales import CLASSES, Scales, Shape
from fedpress.compression.entropy.table import Table, Tables, fit
from fedpress.compression.entropy.tokens import Tokens
from fedpress.compression.errors import FrameError
from fedpress.compression.frame import Reader, put_varint

_FINEST = 12  # precision of tables: their slots are looked up for each context, and should stay in the cache
_ZEROS = 0.7  # share of zeros from which a group codes gaps: fewer tokens at about the same bits
_TABLE_BITS = 60  # about what a group's tables take
_DENSE, _SPARSE, _ONES = range(3)  # kinds of groups; _ONES is sparse, and all magnitudes are 1
_NO_GROUP = 255
_NO_SIGNS, _SIGNS, _NEGATIVE = range(3)  # no number is negative, some are, all that are not zero are
_TOKENS = Tokens(direct=6, split=2)
_BLOCK = 1 << 16  # numbers that are joined at a time

Found = list[int]  # how many cells that are not zero each sparse segment has
Numbers = NDArray[np.unsignedinteger]


@dataclass(frozen=True)
class Plan:
    """Which classes make up which group, and how each is coded. Group g has the contexts 2 g and 2 g + 1."""

    last: NDArray[np.uint8]  # (g,) the last class of each group, ascending
    kinds: NDArray[np.uint8]  # (g,)

    def groups(self, classes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the group of each cell, `_NO_GROUP` for those that are known to be zero."""
        table = np.searchsorted(self.last, np.arange(CLASSES)).astype(np.uint8)
        table[(table == self.last.size) | (np.arange(CLASSES) == 0)] = _NO_GROUP
        return table[classes]

    def write(self, out: bytearray) -> None:
        """Append the plan."""
        out.append(self.kinds.size)
        out += self.last.tobytes() + self.kinds.tobytes()

    @classmethod
    def read(cls, reader: Reader) -> "Plan":
        """Return the plan that comes next; raise FrameError if none does."""
        count = reader.byte()
        plan = cls(*(np.frombuffer(reader.take(count), np.uint8) for _ in range(2)))
        ascending = np.diff(plan.last.astype(int), prepend=0) > 0
        if (plan.kinds > _ONES).any() or not ascending.all() or (plan.last >= CLASSES).any():
            raise FrameError("not a list of groups")
        return plan


def encode(numbers: NDArray[np.integer], shapes: Sequence[Shape]) -> bytes:
    """Return `numbers`, the cells of matrices of these shapes in C order, as bytes that `decode` reads."""
    at = np.flatnonzero(numbers)
    live = numbers[at]
    magnitude = np.abs(live).view(f"u{live.dtype.itemsize}")
    negative = live < 0
    sign = _NO_SIGNS if not negative.any() else _NEGATIVE if negative.all() else _SIGNS
    signs = np.packbits(negative).tobytes() if sign == _SIGNS else b""
    fitted = scales.fit(at, magnitude, shapes)
    plan = _plan(at, magnitude, fitted)
    found: Found = []
    parts = [(context, *_TOKENS.take_apart(part)) for context, part in _parts(at, magnitude, fitted, plan, found)]
    counts = np.zeros((2 * plan.kinds.size, _TOKENS.count), np.int64)
    for context, token, _, _ in parts:
        counts[context] += np.bincount(token, minlength=_TOKENS.count)
    tables = {int(context): fit(counts[context], _FINEST) for context in np.flatnonzero(counts.any(axis=1))}
    out = bytearray()
    fitted.write(out)
    plan.write(out)
    out += lists.encode(np.array(found, np.uint32))
    out.append(sign)
    used = 0
    if tables:
        for table in tables.values():
            table.write(out)
        place = np.searchsorted(list(tables), [part[0] for part in parts]).astype(np.uint8)
        contexts = np.repeat(place, [part[1].size for part in parts])
        nbytes = sum(table.cost(counts[context]) for context, table in tables.items()) / 8
        token = np.concatenate([part[1] for part in parts])
        used = rans.encode(token, contexts, Tables.of(list(tables.values())), nbytes, signs, out)
        raw = bits.pack(np.concatenate([part[2] for part in parts]), np.concatenate([part[3] for part in parts]))
        put_varint(out, len(raw))
        out += raw
    return bytes(out) + signs[used:]


def decode(reader: Reader, shapes: Sequence[Shape], out: NDArray[np.integer]) -> None:
    """Fill `out` (n,), zeros, with the numbers that come next; raise FrameError if they are not of this kind."""
    fitted = Scales.read(reader, shapes)
    plan = Plan.read(reader)
    segments = [
        (chunk, group, int(count))
        for chunk, (_, classes) in enumerate(fitted.chunks())
        for group, count in enumerate(np.bincount(plan.groups(classes), minlength=256)[: plan.kinds.size])
        if count
    ]
    found = iter(lists.decode(reader, sum(plan.kinds[group] != _DENSE for _, group, _ in segments)).tolist())
    sizes = [count if plan.kinds[group] == _DENSE else next(found) for _, group, count in segments]
    if any(size > count for size, (_, _, count) in zip(sizes, segments, strict=True)):
        raise FrameError("more cells are not zero than there are")
    sign = reader.byte()
    if sign > (_NEGATIVE if out.dtype.kind == "i" else _NO_SIGNS):
        raise FrameError(f"{out.dtype.name} has no signs of kind {sign}")
    runs = [
        (2 * group + more, size)
        for size, (_, group, _) in zip(sizes, segments, strict=True)
        for more in range(1 + int(plan.kinds[group] == _SPARSE))
    ]
    contexts = sorted({context for context, size in runs if size})
    carried = b""
    if contexts:
        tables = Tables.of([Table.read(reader, _TOKENS.count) for _ in contexts])
        if tables.precision > _FINEST:
            raise FrameError(f"a table's precision is at most {_FINEST} here, got {tables.precision}")
        place = np.searchsorted(contexts, [context for context, size in runs if size]).astype(np.uint8)
        token, carried = rans.decode(reader, place, np.array([size for _, size in runs if size]), tables)
        coded = _Coded(token, bits.BitReader(reader.take(reader.varint(4 * token.size))))
        by_chunk: dict[int, list[tuple[int, int]]] = {}
        for size, (chunk, group, _) in zip(sizes, segments, strict=True):
            by_chunk.setdefault(chunk, []).append((group, size))
        for chunk, (first, classes) in enumerate(fitted.chunks()):
            _fill(out[first : first + classes.size], plan, plan.groups(classes), by_chunk.get(chunk, []), coded)
        coded.raw.end()
    if sign == _SIGNS:
        _negate(out, reader, carried)
    elif any(carried):
        raise FrameError("the coder does not end where it began")
    elif sign == _NEGATIVE:
        np.negative(out, out=out)


def _plan(at: NDArray[np.int64], magnitude: Numbers, fitted: Scales) -> Plan:
    """Return the groups of neighbouring classes that take the fewest bits, by dynamic programming."""
    top = 16
    counts = np.zeros((CLASSES, top + 1))
    for first, classes in fitted.chunks():
        low, high = np.searchsorted(at, [first, first + classes.size])
        of_cell = classes[at[low:high] - first].astype(np.intp)
        token = np.minimum(magnitude[low:high], top).astype(np.intp)
        part = np.bincount(of_cell * (top + 1) + token, minlength=counts.size).reshape(counts.shape)
        part[:, 0] = np.bincount(classes, minlength=CLASSES) - part.sum(axis=1)
        counts += part
    counts[0] = 0
    live = np.flatnonzero(counts.any(axis=1))
    sums = np.concatenate([np.zeros((1, top + 1)), np.cumsum(counts[live], axis=0)])
    best: list[tuple[float, int]] = [(0.0, 0)]  # bits of the first classes, and where their last group begins
    for end in range(1, live.size + 1):
        cost = scales.entropy_bits(sums[end] - sums[:end]) + _TABLE_BITS
        best.append(min((best[start][0] + float(cost[start]), start) for start in range(end)))
    edges = [live.size]
    while edges[-1]:
        edges.append(best[edges[-1]][1])
    kinds = []
    for start, end in pairwise(edges[::-1]):
        group = sums[end] - sums[start]
        ones = _ONES if not group[2:].any() else _SPARSE
        kinds.append(ones if group[0] >= _ZEROS * group.sum() else _DENSE)
    return Plan((live[np.array(edges[-2::-1], int) - 1]).astype(np.uint8), np.array(kinds, np.uint8))


def _parts(
    at: NDArray[np.int64], magnitude: Numbers, fitted: Scales, plan: Plan, found: Found
) -> Iterator[tuple[int, Numbers]]:
    """Yield context and numbers of each part, in order, and append to `found`."""
    for first, classes in fitted.chunks():
        groups = plan.groups(classes)
        low, high = np.searchsorted(at, [first, first + classes.size])
        place, number = at[low:high] - first, magnitude[low:high]
        group_of = groups[place]
        full = np.zeros(0, magnitude.dtype)
        for group in np.flatnonzero(np.bincount(groups, minlength=256)[: plan.kinds.size]).tolist():
            cells = np.flatnonzero(groups == group)
            if plan.kinds[group] == _DENSE:
                if not full.size:
                    full = np.zeros(classes.size, magnitude.dtype)
                    full[place] = number
                yield 2 * group, full[cells]
                continue
            mine = group_of == group
            rank = np.searchsorted(cells, place[mine])
            found.append(rank.size)
            yield 2 * group, (np.diff(rank, prepend=-1) - 1).astype(np.uint32)
            if plan.kinds[group] == _SPARSE:
                yield 2 * group + 1, number[mine] - magnitude.dtype.type(1)


@dataclass
class _Coded:
    """Tokens and raw bits, read from the front on."""

    token: NDArray[np.uint8]
    raw: bits.BitReader
    at: int = 0

    def blocks(self, size: int) -> Iterator[tuple[slice, NDArray[np.uint32]]]:
        """Yield the next `size` numbers block by block, and where each block stands among them."""
        for first in range(0, size, _BLOCK):
            last = min(size, first + _BLOCK)
            yield slice(first, last), _TOKENS.join(self.token[self.at + first : self.at + last], self.raw)
        self.at += size


def _fill(
    out: NDArray[np.integer], plan: Plan, groups: NDArray[np.uint8], sizes: list[tuple[int, int]], coded: _Coded
) -> None:
    """Fill the cells of one chunk with their magnitudes."""
    for group, size in sizes:
        cells = np.flatnonzero(groups == group)
        if plan.kinds[group] != _DENSE:
            cells = _live(cells, size, coded)
        if plan.kinds[group] == _ONES:
            out[cells] = 1
            continue
        least = int(plan.kinds[group] == _SPARSE)
        for block, number in coded.blocks(size):
            if int(number.max()) > np.iinfo(out.dtype).max - least:
                raise FrameError(f"a number is beyond {out.dtype.name}")
            out[cells[block]] = number + np.uint32(least)


def _live(cells: NDArray[np.int64], size: int, coded: _Coded) -> NDArray[np.int64]:
    """Return those of a group's cells that are not zero."""
    rank = np.empty(size, np.int64)
    last = -1
    for block, gap in coded.blocks(size):
        rank[block] = np.cumsum(gap.astype(np.int64) + 1) + last
        last = int(rank[block][-1])
    if last >= cells.size:
        raise FrameError(f"a number stands at {last} of {cells.size}")
    return cells[rank]


def _negate(out: NDArray[np.integer], reader: Reader, carried: bytes) -> None:
    """Give the numbers their signs."""
    count = (int(np.count_nonzero(out)) + 7) // 8
    used = min(len(carried), count // 2 * 2)
    if any(carried[used:]):
        raise FrameError("the coder does not end where it began")
    signs = bits.BitReader(carried[:used] + reader.take(count - used))
    for first in range(0, out.size, _BLOCK):
        block = out[first : first + _BLOCK]
        live = np.flatnonzero(block)
        negative = np.empty(live.size, np.uint8)
        signs.fixed(negative, 1)
        np.negative(block, out=block, where=_mask(block.size, live[negative == 1]))
    signs.end()


def _mask(size: int, at: NDArray[np.int64]) -> NDArray[np.bool_]:
    mask = np.zeros(size, bool)
    mask[at] = True
    return mask
