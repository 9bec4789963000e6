"""Arrays of integers as bytes, in whichever way is shortest.

plain    the array's bytes
dense    every number as a token under one table
sparse   the gaps between numbers that are not zero, and those numbers, as tokens; read, no longer written
cells    under contexts, as the cells of matrices (`cells`)
history  under contexts, as the cells of matrices of few rows (`history`)
side     the same, where columns begin with what they had in an update that both ends know
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
_FEW = 4096  # numbers up to which one table may beat contexts
_NAME = 20  # bytes that it takes a frame to name what both ends know
_BLOCK = 1 << 16  # numbers that are joined at a time


def encode(
    array: NDArray[np.integer], shapes: Sequence[Shape] = (), *, by_row: bool = False, start: row_coder.Start = None
) -> bytes:
    """Return `array` (n,), the cells of matrices of these `shapes` if any, as bytes that `decode` reads.

    `by_row` is for matrices of few rows and many columns; `start` is what their columns are said to have had.
    """
    head = bytearray()
    put_head(head, array)
    coded: list[bytes] = []
    if array.size and array.dtype.itemsize <= 4:
        if array.dtype.kind == "u" or array.min() > np.iinfo(array.dtype).min:  # else there is no magnitude
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


def decode(data: bytes, room: int, shapes: Sequence[Shape] = (), start: row_coder.Start = None) -> NDArray[np.integer]:
    """Return the array, of at most `room` bytes, that `data` stands for; raise FrameError if it is none."""
    reader = ByteReader(data)
    dtype, count = reader.head(room, "iu")
    if count * dtype.itemsize > room:
        raise FrameError(f"{count} of {dtype.name} are announced, {room} bytes can be")
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
                raise FrameError("a frame that needs an update that both ends know, and none was given")
            row_coder.decode(reader, matrices, array, start)
        else:
            (_read_dense if way == _DENSE else _read_sparse)(reader, array)
    else:
        raise FrameError(f"no way of coding has the number {way}")
    reader.end()
    return array


def _read_dense(reader: ByteReader, array: NDArray[np.integer]) -> None:
    numbers = ListReader.of(reader, array.size)
    for first in range(0, array.size, _BLOCK):
        array[first : first + _BLOCK] = _cast(numbers.block(first, _BLOCK), array.dtype)
    numbers.end()


def _read_sparse(reader: ByteReader, array: NDArray[np.integer]) -> None:
    live = reader.varint(array.size)
    gaps, others = ListReader.of(reader, live), ListReader.of(reader, live)
    last = -1
    for first in range(0, live, _BLOCK):
        at = np.cumsum(gaps.block(first, _BLOCK).astype(np.int64) + 1) + last
        last = int(at[-1])
        if last >= array.size:
            raise FrameError(f"a number stands at {last} of {array.size}")
        number = others.block(first, _BLOCK)
        if int(number.max()) == 0xFFFFFFFF:
            raise FrameError("a number is beyond 32 bits")
        array[at] = _cast(number + np.uint32(1), array.dtype)
    gaps.end()
    others.end()


def _cast(numbers: NDArray[np.uint32], dtype: np.dtype[np.integer]) -> NDArray[np.integer]:
    whole = unfold(numbers) if dtype.kind == "i" else numbers
    limits = np.iinfo(dtype)
    if not (limits.min <= int(whole.min()) and int(whole.max()) <= limits.max):
        raise FrameError(f"a number is beyond {dtype.name}")
    return whole.astype(dtype)
