"""Arrays of integers as bytes, by the coder with the fewest bytes.

plain    the array's bytes
dense    every number as a token under one table
sparse   the gaps between nonzero numbers, and those numbers, as tokens; decoded, no longer written
cells    as the cells of matrices, by `matrix_coder`
history  as the cells of matrices of few rows, by `row_coder`
side     the same, with initial sums of columns from an update that both ends have
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedpress.common.errors import FrameError
from fedpress.compression.entropy import matrix_coder, row_coder
from fedpress.compression.entropy.context_classes import Shape
from fedpress.compression.entropy.list_coder import EncodedList, ListReader
from fedpress.compression.entropy.tokens import fold, unfold
from fedpress.compression.frame import ByteReader, put_head, to_bytes

_PLAIN, _DENSE, _SPARSE, _CELLS, _HISTORY, _SIDE = range(6)
_TINY = 10  # bytes up to which no coder makes an array shorter
_SHORT = 64  # numbers up to which contexts cost more than they save
_FEW = 4096  # numbers up to which one table may be better than contexts
_NAME = 20  # bytes of a frame for the name of the side information
_BLOCK = 1 << 16  # numbers per block


def encode(
    array: NDArray[np.integer], shapes: Sequence[Shape] = (), *, by_row: bool = False, start: row_coder.Start = None
) -> bytes:
    """Return `array` (n,) as bytes for `decode`.

    Parameters
    ----------
    shapes : sequence of Shape
        Of the matrices whose cells the array holds; empty if it does not.
    by_row : bool
        Whether to try the coder for matrices of few rows and many columns.
    start : row_coder.Start
        Initial sums of the columns, for that coder.

    Examples
    --------
    >>> decode(encode(np.array([0, -3, 1], np.int8)), 100).tolist()
    [0, -3, 1]
    """
    head = bytearray()
    put_head(head, array)
    coded: list[bytes] = []
    if array.nbytes > _TINY and array.dtype.itemsize <= 4:
        if array.size > _SHORT and (
            array.dtype.kind == "u" or array.min() > np.iinfo(array.dtype).min  # else its magnitude overflows
        ):
            coded.append(bytes([_CELLS]) + matrix_coder.encode(array, shapes or [(1, array.size)]))
            if by_row:
                coded.append(bytes([_HISTORY]) + row_coder.encode(array, shapes))
            if start is not None:
                coded.append(bytes([_SIDE]) + row_coder.encode(array, shapes, start))
        if array.size <= _FEW:
            numbers = fold(array) if array.dtype.kind == "i" else array
            dense = bytearray([_DENSE])
            EncodedList.of(numbers.astype(np.uint32)).write(dense)
            coded.append(bytes(dense))
    best = min(coded, key=lambda way: len(way) + _NAME * (way[0] == _SIDE), default=b"")
    if not coded or len(best) > array.nbytes:
        best = bytes([_PLAIN]) + to_bytes(array)
    return bytes(head) + best


def uses_side(data: bytes) -> bool:
    """Return whether `decode` needs the same `start` that `encode` was given."""
    reader = ByteReader(data)
    reader.head(len(data) << 40, "iu")
    return reader.byte() == _SIDE


def decode(
    data: bytes, max_nbytes: int, shapes: Sequence[Shape] = (), start: row_coder.Start = None
) -> NDArray[np.integer]:
    """Return the array that was encoded, of at most `max_nbytes` bytes; raise FrameError if the data is not valid."""
    reader = ByteReader(data)
    dtype, count = reader.head(max_nbytes, "iu")
    if count * dtype.itemsize > max_nbytes:
        raise FrameError(f"a stream must decode to at most {max_nbytes} bytes, got {count} of {dtype.name}")
    way = reader.byte()
    if way == _PLAIN:
        array = np.frombuffer(reader.take(count * dtype.itemsize), dtype)
    elif way in (_DENSE, _SPARSE, _CELLS, _HISTORY, _SIDE) and dtype.itemsize <= 4:
        array = np.zeros(count, dtype)
        matrices = shapes if sum(m * n for m, n in shapes) == count else [(1, count)]
        if way == _CELLS:
            matrix_coder.decode(reader, matrices, array)
        elif way == _HISTORY:
            row_coder.decode(reader, matrices, array)
        elif way == _SIDE:
            if start is None or matrices is not shapes:
                raise FrameError("the frame needs the side information, which must be given")
            row_coder.decode(reader, matrices, array, start)
        else:
            (_read_dense if way == _DENSE else _read_sparse)(reader, array)
    else:
        raise FrameError(f"the number of a coder must be 0 to {_SIDE}, got {way}")
    reader.end()
    return array


def _read_dense(reader: ByteReader, array: NDArray[np.integer]) -> None:
    numbers = ListReader.of(reader, array.size)
    for first in range(0, array.size, _BLOCK):
        array[first : first + _BLOCK] = _cast(numbers.block(first, _BLOCK), array.dtype)
    numbers.end()


def _read_sparse(reader: ByteReader, array: NDArray[np.integer]) -> None:
    count = reader.varint(array.size)
    gaps, others = ListReader.of(reader, count), ListReader.of(reader, count)
    last = -1
    for first in range(0, count, _BLOCK):
        at = np.cumsum(gaps.block(first, _BLOCK).astype(np.int64) + 1) + last
        last = int(at[-1])
        if last >= array.size:
            raise FrameError(f"positions of numbers must be below {array.size}, got {last}")
        number = others.block(first, _BLOCK)
        if int(number.max()) == 0xFFFFFFFF:
            raise FrameError("a number must fit 32 bits")
        array[at] = _cast(number + np.uint32(1), array.dtype)
    gaps.end()
    others.end()


def _cast(numbers: NDArray[np.uint32], dtype: np.dtype[np.integer]) -> NDArray[np.integer]:
    whole = unfold(numbers) if dtype.kind == "i" else numbers
    limits = np.iinfo(dtype)
    if not (limits.min <= int(whole.min()) and int(whole.max()) <= limits.max):
        raise FrameError(f"a number must fit {dtype.name}")
    return whole.astype(dtype)
