"""The largest singular pairs of a matrix by subspace iteration, Halko et al. 2011, https://arxiv.org/abs/0909.4061."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedpress.compression.kernels.scalar_quantizer import peak_of

_PASSES = 2  # power iterations
_RANGE = 40  # matrices whose largest magnitude is beyond 2**40 or below 2**-40 are scaled, so that squares are finite
_MOST = np.finfo(np.float32).max


@dataclass(frozen=True)
class SingularPairs:
    """Approximations of the k largest singular pairs of a matrix (m, n)."""

    left: NDArray[np.float32]  # (m, k), orthonormal
    value: NDArray[np.float32]  # (k,) descending
    right: NDArray[np.float32]  # (n, k), orthonormal

    @classmethod
    def empty(cls) -> "SingularPairs":
        """Return no pairs."""
        return cls(np.zeros((0, 0), np.float32), np.zeros(0, np.float32), np.zeros((0, 0), np.float32))

    def first(self, count: int) -> "SingularPairs":
        """Return the `count` largest pairs."""
        return SingularPairs(self.left[:, :count], self.value[:count], self.right[:, :count])

    @property
    def short(self) -> NDArray[np.float32]:
        """The shorter vectors times their singular values, (k, the smaller of m and n)."""
        side = self.left if self.left.shape[0] <= self.right.shape[0] else self.right
        return (side * self.value).T


def truncated_svd(matrix: NDArray[np.float32], k: int, rng: np.random.Generator) -> SingularPairs:
    """Return the `k` largest singular pairs of `matrix` (m, n), or all if it has fewer.

    Examples
    --------
    >>> pairs = truncated_svd(np.diag([3.0, 2.0, 1.0]).astype(np.float32), 2, np.random.default_rng(0))
    >>> pairs.value.round(3).tolist()
    [3.0, 2.0]
    """
    m, n = matrix.shape
    if m > n:
        turned = truncated_svd(matrix.T, k, rng)
        return SingularPairs(turned.right, turned.value, turned.left)
    exponent = math.frexp(peak_of(matrix))[1]
    if abs(exponent) > _RANGE:
        pairs = truncated_svd(np.ldexp(matrix, -exponent), k, rng)
        with np.errstate(over="ignore"):
            value = np.minimum(np.ldexp(pairs.value, exponent), _MOST)
        return SingularPairs(pairs.left, value, pairs.right)
    k = min(k, m)
    basis = np.eye(m, dtype=np.float32)
    if 2 * k < m:
        basis = np.linalg.qr(matrix @ rng.standard_normal((n, k + 8), dtype=np.float32))[0]
        for _ in range(_PASSES):
            basis = np.linalg.qr(matrix @ (matrix.T @ basis))[0]
    part = basis.T @ matrix
    square, turn = np.linalg.eigh((part @ part.T).astype(np.float64))
    order = np.argsort(square)[::-1][:k]
    value = np.sqrt(np.maximum(square[order], 0)).astype(np.float32)
    turn = turn[:, order].astype(np.float32)
    least = max(float(value.max(initial=0)) * 2**-60, float(np.finfo(np.float32).tiny))  # less is rounding
    right = (turn.T @ part).T / np.maximum(value, np.float32(least))
    return SingularPairs(basis @ turn, value, right)
