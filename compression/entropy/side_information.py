"""Activity of rows and columns in an update that both ends have, as a prediction for the next one.

Results depend only on integers and products with powers of two, so they have the same bits on every machine.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedpress.compression.entropy.context_classes import Shape

_BITS = 12  # of a value, relative to the largest of its matrix
_BLOCK = 1 << 16  # cells per block
_MEAN = 4  # initial sum of a row or column of mean activity

Activity = tuple[NDArray[np.int64], NDArray[np.int64]]  # of rows (m,), of columns (n,)


def activities(values: NDArray[np.float32], shapes: Sequence[Shape]) -> list[Activity]:
    """Return the activity of each matrix's rows and columns in `values`, the cells of all matrices."""
    out = []
    begin = 0
    for m, n in shapes:
        out.append(_activity(values[begin : begin + m * n].reshape(m, n)))
        begin += m * n
    return out


def _activity(matrix: NDArray[np.float32]) -> Activity:
    m, n = matrix.shape
    rows, columns = np.zeros(m, np.int64), np.zeros(n, np.int64)
    peak = max(-float(matrix.min(initial=0)), float(matrix.max(initial=0)))
    if peak == 0:
        return rows, columns
    scale = 2.0 ** (_BITS - np.frexp(peak)[1])
    step = max(1, _BLOCK // max(1, n))
    for first in range(0, m, step):
        whole = np.floor(np.abs(matrix[first : first + step].astype(np.float64)) * scale).astype(np.int64)
        rows[first : first + step] = whole.sum(axis=1)
        columns += whole.sum(axis=0)
    total = max(1, int(rows.sum()))
    return rows * (_MEAN * m) // total, columns * (_MEAN * n) // total
