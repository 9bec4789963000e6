"""Matrices as sums of outer products of integer vectors, with the same bits on every machine.

A pair of integer vectors a (m,) and b (n,) decodes to the matrix a b^T times step times gain. Its gain is about the
step over the singular value, so that rounding costs the same error in either vector. Gains are quarter octaves,
2**(-code/4), as integers over 256. A sum of products of integers below 2**53 is exact in float64 in any order, so a
BLAS can compute it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedpress.common.errors import FrameError
from fedpress.compression.entropy.context_classes import Shape
from fedpress.compression.layout import Layout

LARGEST = 1 << 16  # magnitude of a symbol
CLASSES = 3  # of reconstruction points: magnitudes 1, 2, and 3 or more
_MANTISSA = np.array([256, 215, 181, 152], np.int64)  # 256 * 2**(-code/4) for the codes 0 to 3
GRAINS = 32  # units of a reconstruction point per step
_LEAST_SIDE = 8  # fewest rows and columns of a matrix with pairs
_EXACT = 2.0**53
_BLOCK = 1 << 17  # elements of a product per block
_LARGE, _MOST = 1e20, np.finfo(np.float32).max  # a step from which values may be beyond float32's largest


@dataclass(frozen=True)
class FactorPairs:
    """Pairs of one matrix (m, n)."""

    left: NDArray[np.integer]  # (r, m), magnitudes up to LARGEST
    right: NDArray[np.integer]  # (r, n)
    code: NDArray[np.uint8]  # (r,), of the gains
    left_point: NDArray[np.int8]  # (CLASSES,) excess of a decoded magnitude over its symbol, in 1 / GRAINS steps
    right_point: NDArray[np.int8]

    def add_to(self, out: NDArray[np.float32], step: float) -> None:
        """Add the decoded matrix to `out`, float32 (m, n)."""
        for first, last in self._exact():
            whole, part = np.divmod(self.code[first:last].astype(np.int64), 4)
            octave = int(whole.max())
            weight = (_MANTISSA[part] << (octave - whole)).astype(np.float64)
            left = levels(self.left[first:last], self.left_point) * weight[:, None]
            unit = step * 2.0**-octave / (256 * GRAINS**2)
            columns = max(1, _BLOCK // out.shape[0])
            for column in range(0, out.shape[1], columns):
                block = slice(column, column + columns)
                product = left.T @ levels(self.right[first:last, block], self.right_point)
                product *= unit
                if abs(step) < _LARGE:
                    out[:, block] += product.astype(np.float32)
                    continue
                with np.errstate(over="ignore"):
                    np.clip(out[:, block] + product.astype(np.float32), -_MOST, _MOST, out=out[:, block])

    def _exact(self) -> Iterator[tuple[int, int]]:
        """Yield the longest runs of pairs whose sum is exact in any order."""
        whole, part = np.divmod(self.code.astype(np.int64), 4)
        peak = _MANTISSA[part] * _peak(self.left) * _peak(self.right)
        first = 0
        for last in range(1, whole.size + 1):
            run = slice(first, last + 1)
            if last == whole.size or float((peak[run] * 2.0 ** (whole[run].max() - whole[run])).sum()) >= _EXACT:
                yield first, last
                first = last


def _peak(symbols: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return the largest possible level of each row."""
    return np.asarray(GRAINS * (np.abs(symbols.astype(np.int32)).max(axis=1) + 0.5))


def levels(symbols: NDArray[np.integer], point: NDArray[np.int8]) -> NDArray[np.float64]:
    """Return the decoded levels of `symbols`, in 1 / GRAINS steps: integers."""
    magnitude = np.abs(symbols.astype(np.float64))
    shift = np.concatenate([[0], point]).astype(np.float64)
    magnitude = GRAINS * magnitude + shift[np.minimum(magnitude, CLASSES).astype(np.intp)]
    return np.where(symbols < 0, -magnitude, magnitude)


def points(vectors: Sequence[NDArray[np.floating]], symbols: Sequence[NDArray[np.integer]]) -> NDArray[np.int8]:
    """Return the mean excess of `vectors`, in steps, over the magnitudes of their `symbols`, int8 (CLASSES,)."""
    count, excess = np.zeros(CLASSES + 1), np.zeros(CLASSES + 1)
    for vector, symbol in zip(vectors, symbols, strict=True):
        magnitude = np.abs(symbol).reshape(-1)
        kind = np.minimum(magnitude, CLASSES).astype(np.intp)
        count += np.bincount(kind, minlength=CLASSES + 1)
        excess += np.bincount(kind, np.abs(vector).reshape(-1) - magnitude, minlength=CLASSES + 1)
    mean = excess[1:] / np.maximum(count[1:], 1)
    return np.rint(mean * GRAINS).clip(-GRAINS // 2, GRAINS // 2).astype(np.int8)


def most(shape: tuple[int, int]) -> int:
    """Return the largest number of pairs of a matrix, with no more elements than it has; 0 for a small matrix."""
    m, n = shape
    return m * n // (m + n) if min(m, n) >= _LEAST_SIDE else 0


def shapes(rank: NDArray[np.integer], layout: Layout) -> list[Shape]:
    """Return the shapes of each matrix's left and right vectors; raise FrameError if there are too many."""
    out = []
    for r, (m, n) in zip(rank.tolist(), layout.matrices, strict=True):
        if r > most((m, n)):
            raise FrameError(f"a matrix of {m} x {n} must have at most {most((m, n))} pairs, got {r}")
        if r:
            out += [(r, m), (r, n)]
    return out


def cut(factors: NDArray[np.integer], shapes: Sequence[Shape]) -> Iterator[NDArray[np.integer]]:
    """Yield the consecutive parts of `factors` with these shapes."""
    at = 0
    for r, size in shapes:
        yield factors[at : at + r * size].reshape(r, size)
        at += r * size


def code_of(singular: NDArray[np.floating], step: float) -> NDArray[np.uint8]:
    """Return the codes of the gains for pairs of these singular values, each at least one step."""
    return np.asarray(np.clip(np.rint(4 * np.log2(np.maximum(singular / step, 1))), 0, 255), np.uint8)


def gain_of(code: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the gains of these codes."""
    whole, part = np.divmod(code.astype(np.int64), 4)
    return _MANTISSA[part] / 256 * 2.0**-whole
