"""Integers of matrices of few rows and many columns, row by row, with the sum of a column so far as context.

The expected magnitude at (i, j) is row i's mean, sent first in half octaves, times the sum of column j in the rows
above over the mean of these sums: unlike `row_column_contexts`, it sends no levels of columns.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from fedpress.common.errors import FrameError
from fedpress.compression.entropy import bit_io, list_coder, rans, sign_bits
from fedpress.compression.entropy.context_classes import CLASSES, Shape, level
from fedpress.compression.entropy.context_clustering import ContextGroups
from fedpress.compression.entropy.frequency_tables import FrequencyTables
from fedpress.compression.entropy.matrix_coder import TOKENS
from fedpress.compression.frame import ByteReader, put_varint

_PRIOR = 0.5  # added to the sum of every column
_STEPS = np.array(
    [0.5946035575013605, 0.8408964152537145]
)  # 2**-0.75 and 2**-0.25: where a number's half octaves end, in parts of the octave's end
_BLOCK = 1 << 16  # cells that are encoded at once
_LARGEST = 1 << 24  # magnitudes up to here keep sums of columns exact


Start = Sequence[NDArray[np.int64]] | None  # initial sums of the columns of each matrix, (n,) each; None for zeros


def encode(numbers: NDArray[np.integer], shapes: Sequence[Shape], start: Start = None) -> bytes:
    """Return `numbers`, the cells of matrices of these shapes in C order, as bytes for `decode`."""
    sign, spare = sign_bits.encode(numbers)
    means, rows, of_rows = [np.zeros(0, np.uint8)], [], []
    for block, above in _blocks(np.abs(numbers), shapes, start):
        mean = level(block.mean(axis=1))
        some = np.flatnonzero(mean)
        means.append(mean)
        rows += list(block[some])
        of_rows.append(_classes(above[some], mean[some, None]).reshape(-1))
    out = bytearray()
    out += list_coder.encode(np.concatenate(means))
    if not rows:
        return bytes(out)
    classes = np.concatenate(of_rows)
    token, raw, width = TOKENS.tokenize(np.concatenate(rows).astype(np.uint32))
    counts = np.bincount(classes.astype(np.intp) * TOKENS.count + token, minlength=CLASSES * TOKENS.count)
    groups, of_group = ContextGroups.fit(counts.reshape(CLASSES, TOKENS.count))
    tables = FrequencyTables.fit(np.array(of_group))
    groups.write(out)
    tables.write(out)
    out.append(sign)
    packed = bit_io.pack(raw, width)
    put_varint(out, len(packed))
    out += packed
    used = rans.encode(token, groups.of(classes), tables, spare, out, [row.size for row in rows])
    return bytes(out) + spare[used:]


def decode(reader: ByteReader, shapes: Sequence[Shape], out: NDArray[np.integer], start: Start = None) -> None:
    """Fill `out` (n,), zeros, with the numbers that were encoded; raise FrameError if the data is not valid."""
    means = list_coder.decode(reader, sum(m for m, n in shapes if n))
    if (means >= CLASSES).any():
        raise FrameError(f"a row's class must be below {CLASSES}, got {means.max()}")
    if not means.any():
        return
    groups = ContextGroups.read(reader)
    tables = FrequencyTables.read(reader, groups.last.size, TOKENS.count) if groups.last.size else None
    if tables is None or means.max() > groups.last[-1]:
        raise FrameError("every class must have a table")
    sign = reader.byte()
    raw = bit_io.BitReader(reader.take(reader.varint(4 * out.size)))
    count = sum(row.size for (row, _), mean in zip(_rows(out, shapes, start), means, strict=True) if mean)
    decoder = rans.Decoder(reader, tables, count)
    most = min(_LARGEST, np.iinfo(out.dtype).max)
    for (row, before), mean in zip(_rows(out, shapes, start), means.tolist(), strict=True):
        if mean:
            group = groups.of(np.minimum(_classes(before, mean), groups.last[-1]))
            number = TOKENS.join(decoder.take(group), raw)
            if number.max() > most:
                raise FrameError(f"a number must be at most {most}")
            row[:] = number
    raw.end()
    sign_bits.apply(out, sign, decoder.end(), reader)


def _blocks(
    magnitude: NDArray[np.integer], shapes: Sequence[Shape], start: Start
) -> Iterator[tuple[NDArray[np.integer], NDArray[np.int64]]]:
    """Yield rows of about `_BLOCK` cells at once, (k, n), and the column sums above each, (k, n)."""
    begin = 0
    for number, (m, n) in enumerate(shapes):
        above = np.zeros(n, np.int64) if start is None else start[number]
        matrix = magnitude[begin : begin + m * n].reshape(m, n)
        for first in range(0, m if n else 0, max(1, _BLOCK // max(1, n))):
            block = matrix[first : first + max(1, _BLOCK // n)]
            sums = np.cumsum(np.vstack([above, block]), axis=0)
            yield block, sums[:-1]
            above = sums[-1]
        begin += m * n


def _rows(
    magnitude: NDArray[np.integer], shapes: Sequence[Shape], start: Start
) -> Iterator[tuple[NDArray[np.integer], NDArray[np.int64]]]:
    """Yield each row, a view, and the column sums above it; a row is read only after it was yielded."""
    begin = 0
    for number, (m, n) in enumerate(shapes):
        above = np.zeros(n, np.int64) if start is None else start[number]
        for _ in range(m if n else 0):
            row = magnitude[begin : begin + n]
            yield row, above
            above = above + row
            begin += n


def _classes(above: NDArray[np.int64], mean: NDArray[np.uint8] | int) -> NDArray[np.uint8]:
    """Return the class of each cell of rows of class `mean`, (k, 1), or of one row, below columns of these sums.

    It uses sums of integers, IEEE multiplication and division, and comparisons only: the same bits on every machine.
    """
    count = above.shape[-1]
    part = (above + _PRIOR) * count / (above.sum(axis=-1, keepdims=True).astype(np.float64) + _PRIOR * count)
    fraction, octave = np.frexp(part)
    shift = 2 * octave - 2 + np.searchsorted(_STEPS, fraction, side="right")
    return np.asarray(np.clip(shift + mean, 1, CLASSES - 1), np.uint8)
