"""Contexts of the cells of a matrix, by the magnitudes of its rows and columns.

The expected magnitude at (i, j) is row mean i times column mean j over the mean of all, the maximum-likelihood fit of
a Poisson rate to its margins. It is rounded to half octaves, as the sum of a level of the row and one of the column,
which are sent as two short lists.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedpress.common.errors import FrameError
from fedpress.compression.entropy import list_coder
from fedpress.compression.entropy.context_classes import CLASSES, Shape, entropy_bits, level
from fedpress.compression.frame import ByteReader

_OFFSET = 64  # column levels are sent with this added
_FEW = 64  # least sum of magnitudes of a matrix with levels
_CHUNK = 1 << 19  # cells per chunk
_BLOCK = 1 << 17  # cells per block


@dataclass(frozen=True)
class RowColumnLevels:
    """Levels of each matrix's rows and columns; arrays of one element if all have the same.

    rows     uint8 (m,) or (1,): 0 for a row of zeros, else the class in a column of level 0
    columns  uint8 (n,) or (1,): 0 for a column of zeros, else `_OFFSET` plus its contribution to the class
    """

    shapes: tuple[Shape, ...]
    rows: tuple[NDArray[np.uint8], ...]
    columns: tuple[NDArray[np.uint8], ...]

    def write(self, out: bytearray) -> None:
        """Append the levels: for each matrix whether rows and columns differ, then all levels in two lists."""
        many = [(rows.size > 1) + 2 * (columns.size > 1) for rows, columns in zip(self.rows, self.columns, strict=True)]
        out += list_coder.encode(np.array(many, np.uint8))
        out += list_coder.encode(np.concatenate([np.zeros(0, np.uint8), *self.rows]))
        columns = [levels for levels in self.columns if levels.size > 1]
        out += list_coder.encode(np.concatenate([np.zeros(0, np.uint8), *columns]))

    @classmethod
    def read(cls, reader: ByteReader, shapes: Sequence[Shape]) -> "RowColumnLevels":
        """Return the levels that `write` wrote for matrices of these shapes; raise FrameError."""
        many = list_coder.decode(reader, len(shapes))
        row_sizes = [m if kind & 1 else 1 for kind, (m, _) in zip(many.tolist(), shapes, strict=True)]
        column_sizes = [n if kind & 2 else 0 for kind, (_, n) in zip(many.tolist(), shapes, strict=True)]
        rows, columns = (_levels(reader, sizes) for sizes in (row_sizes, column_sizes))
        plain = np.full(1, _OFFSET, np.uint8)
        return cls(tuple(shapes), tuple(rows), tuple(levels if levels.size else plain for levels in columns))

    @property
    def size(self) -> int:
        """Number of cells."""
        return sum(m * n for m, n in self.shapes)

    def chunks(self) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Yield the first cell and the classes of all cells of each chunk, in order."""
        for first in range(0, self.size, _CHUNK):
            yield first, self.classes(first, min(first + _CHUNK, self.size))

    def classes(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Return the classes of the cells from `start` to `stop`, uint8."""
        out = np.empty(stop - start, np.uint8)
        begin = 0
        for (m, n), rows, columns in zip(self.shapes, self.rows, self.columns, strict=True):
            low, high = max(start, begin), min(stop, begin + m * n)
            if low < high:
                first, last = (low - begin) // n, (high - begin - 1) // n + 1
                part = _classes(np.broadcast_to(rows, (m,))[first:last], np.broadcast_to(columns, (n,)))
                skip = low - begin - first * n
                out[low - start : high - start] = part.reshape(-1)[skip : skip + high - low]
            begin += m * n
        return out


def _levels(reader: ByteReader, sizes: Sequence[int]) -> list[NDArray[np.uint8]]:
    levels = list_coder.decode(reader, sum(sizes))
    if levels.size and levels.max() > 255:
        raise FrameError(f"a level must be at most 255, got {levels.max()}")
    return np.split(levels.astype(np.uint8), np.cumsum(sizes)[:-1]) if sizes else []


def _classes(rows: NDArray[np.uint8], columns: NDArray[np.uint8]) -> NDArray[np.uint8]:
    level = np.add.outer(rows.astype(np.int16), columns.astype(np.int16) - _OFFSET)
    classes = np.clip(level, 1, CLASSES - 1, out=level).astype(np.uint8)
    classes[rows == 0] = 0
    classes[:, columns == 0] = 0
    return classes


def fit(numbers: NDArray[np.integer], shapes: Sequence[Shape]) -> RowColumnLevels:
    """Return the levels of the fewest bits for `numbers`, the cells of matrices of these shapes."""
    rows, columns = [], []
    begin = 0
    for m, n in shapes:
        best = _fit(numbers[begin : begin + m * n].reshape(m, n))
        rows.append(best[0])
        columns.append(best[1])
        begin += m * n
    return RowColumnLevels(tuple(shapes), tuple(rows), tuple(columns))


Levels = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def _fit(matrix: NDArray[np.integer]) -> Levels:
    m, n = matrix.shape
    row_sum, column_sum = np.zeros(m), np.zeros(n)
    for block in _row_blocks(matrix):
        magnitude = np.abs(matrix[block].astype(np.int32))
        row_sum[block] = magnitude.sum(axis=1)
        column_sum += magnitude.sum(axis=0)
    one = np.full(1, _OFFSET, np.uint8)
    total = float(row_sum.sum())
    uniform = level(np.array([total / max(1, m * n)])), one
    if total < _FEW or min(m, n) == 1:
        return uniform
    used = max(1, int(np.count_nonzero(column_sum)))
    ways: list[Levels] = [
        uniform,
        (level(row_sum / n), one),
        (uniform[0], _shift(column_sum, total / n)),
        (level(row_sum / used), _shift(column_sum, total / used)),
    ]
    bits = _bits(ways, matrix)
    return ways[bits.index(min(bits))]


def _row_blocks(matrix: NDArray[np.integer]) -> Iterator[slice]:
    """Yield slices of rows of about `_BLOCK` cells."""
    rows = max(1, _BLOCK // max(1, matrix.shape[1]))
    return (slice(first, first + rows) for first in range(0, matrix.shape[0], rows))


def _shift(sums: NDArray[np.float64], mean: float) -> NDArray[np.uint8]:
    """Return the levels of columns of these sums, relative to the mean."""
    shift = np.clip(np.rint(2 * np.log2(np.maximum(sums, 1e-9) / mean)), 1 - _OFFSET, _OFFSET)
    return np.where(sums > 0, shift + _OFFSET, 0).astype(np.uint8)


def _bits(ways: Sequence[Levels], matrix: NDArray[np.integer]) -> list[float]:
    """Return the approximate bits of the cells under each choice of levels, the levels included."""
    m, n = matrix.shape
    counts = np.zeros((len(ways), CLASSES, 9), np.int64)
    full = [(np.broadcast_to(rows, (m,)), np.broadcast_to(columns, (n,))) for rows, columns in ways]
    for block in _row_blocks(matrix):
        row, column = np.nonzero(matrix[block])
        token = np.minimum(np.abs(matrix[block][row, column].astype(np.int32)), 8)
        for number, (rows, columns) in enumerate(full):
            of_cell = np.clip(rows[block][row].astype(np.int32) + columns[column] - _OFFSET, 1, CLASSES - 1)
            counts[number] += np.bincount(of_cell * 9 + token, minlength=9 * CLASSES).reshape(CLASSES, 9)
    out = []
    for count, (rows, columns), way in zip(counts, full, ways, strict=True):
        row_kind, row_count = np.unique(rows, return_counts=True)
        column_kind, column_count = np.unique(columns, return_counts=True)
        kinds = _classes(row_kind, column_kind).reshape(-1)
        cells = np.bincount(kinds, np.outer(row_count, column_count).reshape(-1), CLASSES).astype(np.int64)
        count[:, 0] = cells - count.sum(axis=1)
        count[0] = 0
        lists = sum(
            float(entropy_bits(kind)) + 6 * kind.size
            for levels, kind in zip(way, (row_count, column_count), strict=True)
            if levels.size > 1
        )
        out.append(float(entropy_bits(count).sum()) + lists)
    return out
