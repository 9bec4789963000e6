"""Low-rank coding at one step, by subspace iteration, Halko et al. 2011, https://arxiv.org/abs/0909.4061.

A matrix's largest singular pairs are quantised as two vectors each; the longer one is first refitted by least squares,
given the quantised shorter ones. A pair is kept if it lowers the error by more than its bits cost. The remainder, and
tensors that are not matrices, are quantised with a dead zone. There is one step and one price of a bit, by reverse
water-filling (Cover and Thomas 2006, https://doi.org/10.1002/047174882X, section 10.3.3).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedpress.common.errors import FrameError, SpecError
from fedpress.compression.codec import Streams
from fedpress.compression.kernels import factor_pairs, scalar_quantizer
from fedpress.compression.kernels.factor_pairs import FactorPairs
from fedpress.compression.kernels.truncated_svd import SingularPairs, truncated_svd
from fedpress.compression.layout import Layout
from fedpress.compression.stages.quantize.deadzone import decode_scalar, encode_scalar
from fedpress.compression.stages.quantize.step_search import StepQuantizer, StepTrial, Trials
from fedpress.compression.streams import take, without

_FIRST_RANK = 24  # pairs of the first decomposition
_PRICE = 0.5  # of a bit, over the error that a bit removes at high rates, 2 ln 2 times a twelfth of the squared step
_SURE = 0.1  # least bits of an element of a vector
_ROUNDING, _ROUNDING_REST = 0.36, 0.22  # of vectors, and of the remainder
_LARGE = 1e20  # magnitude from which products of vectors and values may be infinite in float32


@dataclass(frozen=True)
class LowRank(StepQuantizer):
    """Send few singular pairs of each matrix, and quantise the remainder: `lowrank(step | nmse | bits | bytes)`."""

    def trials(self, values: NDArray[np.float32], streams: Streams, layout: Layout, rng: np.random.Generator) -> Trials:
        if values.size != layout.size:
            raise SpecError("lowrank must be given the whole update: it cannot follow a sparsifier")
        matrices = [
            _Matrix(first, values[first : first + m * n].reshape(m, n), rng) for first, (m, n) in _places(layout)
        ]
        return lambda step: _try(values, matrices, step)

    def guess(self, values: NDArray[np.float32], nmse: float) -> float:
        # Fitted to updates of the McMahan CNN; on others the search needs a few more trials.
        return float(58 * nmse**0.77 * np.square(values, dtype=np.float64).mean() ** 0.5)

    def decode(self, streams: Streams, layout: Layout) -> Streams:
        values = decode_scalar(streams)
        if values.size != layout.size:
            raise FrameError(f"symbols must be those of {layout.size} values, got {values.size}")
        (step,) = take(streams, "step", np.float32, 1)
        rank = take(streams, "rank", np.uint16, len(layout.matrices))
        shapes = factor_pairs.shapes(rank, layout)
        code = take(streams, "code", np.uint8, int(rank.sum()))
        point = take(streams, "points", np.int8, 2 * factor_pairs.CLASSES)
        factors = streams.get("factors")
        if factors is None or factors.dtype.kind != "i" or factors.size != sum(r * size for r, size in shapes):
            raise FrameError("stream 'factors' must have the size that follows from the ranks")
        if factors.size and max(-int(factors.min()), int(factors.max())) > factor_pairs.LARGEST:
            raise FrameError(f"symbols must be at most {factor_pairs.LARGEST}")
        vectors = factor_pairs.cut(factors, shapes)
        at = 0
        for (first, (m, n)), r in zip(_places(layout), rank.tolist(), strict=True):
            if r:
                pairs = FactorPairs(next(vectors), next(vectors), code[at : at + r], *_points(point, m, n))
                pairs.add_to(values[first : first + m * n].reshape(m, n), float(step))
                at += r
        return {**without(streams, "symbols", "step", "point", "rank", "code", "points", "factors"), "values": values}


def _places(layout: Layout) -> Iterator[tuple[int, tuple[int, int]]]:
    """Yield where each matrix begins among the values, and its shape."""
    sizes = [m * n for m, n in layout.matrices]
    return zip(np.cumsum([0, *sizes]).tolist(), layout.matrices, strict=False)


def _points(point: NDArray[np.int8], m: int, n: int) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """Return the points of the left and the right vectors: the first three are the shorter ones'."""
    short, long = point[: factor_pairs.CLASSES], point[factor_pairs.CLASSES :]
    return (short, long) if m <= n else (long, short)


class _Matrix:
    """A matrix, and its singular pairs as far as they have been computed."""

    def __init__(self, first: int, matrix: NDArray[np.float32], rng: np.random.Generator) -> None:
        self.first, self.matrix, self._rng = first, matrix, rng
        self.most = factor_pairs.most(matrix.shape)
        self._found = SingularPairs.empty()

    def spectrum(self, step: float) -> SingularPairs:
        """Return the pairs that lower the error by more than their bits cost at `step`."""
        if self.most == 0:
            return self._found
        k = min(max(_FIRST_RANK, self._found.value.size), self.most)
        while True:
            if k > self._found.value.size:
                self._found = truncated_svd(self.matrix, min(k, self.most), self._rng)
            worth = _worth(self._found.value, self.matrix.shape, step)
            if worth < 0.9 * k or k >= self.most:
                return self._found.first(worth)
            k *= 2


def _worth(value: NDArray[np.float32], shape: tuple[int, int], step: float) -> int:
    """Return the number of pairs of these singular values that lower the error by more than their bits cost."""
    energy = np.square(value, dtype=np.float64)
    least = step**2 / 12
    bits, left = np.zeros_like(energy), np.zeros_like(energy)
    for size in shape:
        variance = energy / size  # of an element of the vector, if the other vector were exact
        bits += size * (0.5 * np.log2(np.maximum(variance / least, 1)) + _SURE)
        left += size * np.minimum(variance, least)
    keep = energy - left > _PRICE * 2 * np.log(2) * least * bits
    # Beyond this a symbol would be too large; such a matrix is almost exact without pairs.
    keep &= value.astype(np.float64) < step * factor_pairs.LARGEST
    return int(np.argmin(np.append(keep, False)))


def _try(values: NDArray[np.float32], matrices: Sequence[_Matrix], step: float) -> StepTrial:
    found = [(matrix, matrix.spectrum(step)) for matrix in matrices]
    code = [factor_pairs.code_of(pairs.value, step) for _, pairs in found]
    used = [(matrix, pairs, gain) for (matrix, pairs), gain in zip(found, code, strict=True) if gain.size]
    # All shorter vectors first: their points are fitted to all of them.
    wanted = [pairs.short / step for _, pairs, _ in used]
    short = [_round(vectors) for vectors in wanted]
    short_point = factor_pairs.points(wanted, short)
    wanted = [
        _refit(matrix.matrix, vectors, short_point, step * factor_pairs.gain_of(gain))
        for (matrix, _, gain), vectors in zip(used, short, strict=True)
    ]
    long = [_round(vectors) for vectors in wanted]
    point = np.concatenate([short_point, factor_pairs.points(wanted, long)])
    rest, factors = values.copy(), [np.zeros(0, np.int32)]
    for (matrix, _, gain), few, many in zip(used, short, long, strict=True):
        m, n = matrix.matrix.shape
        left, right = (few, many) if m <= n else (many, few)
        explained = rest[matrix.first : matrix.first + m * n].reshape(m, n)
        FactorPairs(left, right, gain, *_points(point, m, n)).add_to(explained, -step)
        factors += [left.reshape(-1), right.reshape(-1)]
    streams, error = encode_scalar(rest, step, _ROUNDING_REST)
    streams |= {
        "rank": np.array([gain.size for gain in code], np.uint16),
        "code": np.concatenate([np.zeros(0, np.uint8), *code]),
        "points": point,
        "factors": scalar_quantizer.narrow(np.concatenate(factors)),
    }
    return StepTrial(streams, error)


def _round(vectors: NDArray[np.floating]) -> NDArray[np.int32]:
    magnitude = np.minimum(np.floor(np.abs(vectors) + _ROUNDING), factor_pairs.LARGEST)
    return np.asarray(np.copysign(magnitude, vectors), np.int32)


def _refit(
    matrix: NDArray[np.float32], short: NDArray[np.int32], point: NDArray[np.int8], weight: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the longer vectors, (r, long), of least squared error with the shorter ones, (r, short)."""
    known = factor_pairs.levels(short, point) / factor_pairs.GRAINS
    target = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    square = known @ known.T
    square += np.eye(len(known)) * (1e-6 * np.trace(square) / len(known) + 1e-30)  # vectors may have become zero
    if scalar_quantizer.peak_of(matrix) < _LARGE:
        product = (known.astype(np.float32) @ target).astype(np.float64)
    else:
        product = known @ target.astype(np.float64)
    return np.linalg.solve(square, product) / weight[:, None]
