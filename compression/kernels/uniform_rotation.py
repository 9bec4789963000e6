"""A random rotation of whole tensors that comes close to a uniformly random one, Ailon and Chazelle 2009, https://doi.org/10.1137/060673096.

A vector x is padded with zeros to a size N for which a Hadamard matrix is known, and becomes H D2 (I x H64) D1 x: signs
D1 drawn at random, Hadamard matrices of order 64 in blocks, random signs D2, and one of order N. The blocks spread what
stands in a few values of x over many, so that rotated values are nearly normal for every x. Up to N = 1024, where one
pass over blocks leaves a bias that can be measured, there are three.

Hadamard matrices of the orders 20 and 24 (Paley 1933, https://doi.org/10.1002/sapm1933121311) and their products with
Sylvester's give orders N at most a third larger than x. The matrices are not normalised: all entries are 1 and -1, so
that sums of whole numbers below 2**24 are exact in float32, in any order and on every machine. With k values of 1 or -1
among N, no sum is above sqrt(64 k N) with one pass over blocks.
"""

from collections.abc import Iterator
from functools import cache
from itertools import accumulate
from operator import mul

import numpy as np
from numpy.typing import NDArray

from fedpress.common.rng import shared

BLOCK = 64  # the order of the matrices in blocks; every size is a multiple of it
_SMALL, _PASSES = 1024, 3  # passes over blocks up to this size; one beyond it
_CHUNK = 1 << 14  # values that go through several passes at once, to stay in the cache
_BITS = 4  # a matrix of order 2**_BITS takes the least time for each doubling of the size
# Signs of eight values, by the bits of a byte, low ones first.
_SIGNS = 1 - 2 * np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little").astype(np.float32)


def padded_size(count: int) -> int:
    """Return the least size N, at least 64, for which a rotation of `count` values is known.

    Examples
    --------
    >>> [padded_size(count) for count in (1, 65, 129, 257, 1_663_370)]
    [64, 128, 192, 320, 2097152]
    """
    units = max(1, -(-count // BLOCK))
    power = 1 << (units - 1).bit_length()
    smaller = [size for size in (5 * power // 8, 6 * power // 8) if power >= 8 or (size == 3 and power == 4)]
    return BLOCK * min([power, *(size for size in smaller if size >= units)])


def rotate(values: NDArray[np.float32], seed: int, unit: float = 1.0) -> NDArray[np.float32]:
    """Return the rotation of `values` times `unit`, not normalised.

    Parameters
    ----------
    values : ndarray of float32, (n,)
        The vector x.
    seed : int
        Seed of the signs, below 2**64.
    unit : float
        A power of two that leaves magnitudes of about 1, so that nothing overflows.

    Returns
    -------
    ndarray of float32, (N,)
        The rotated vector, whose norm is that of x times `unit` and the root of `gain(N)`.

    Examples
    --------
    >>> x = np.array([3, 4], np.float32) / 4
    >>> float(np.square(rotate(x, 0)).sum() / np.square(x).sum()) == gain(64)
    True
    """
    size = padded_size(values.size)
    vector = np.zeros(size, np.float32)
    np.multiply(values, np.float32(unit), out=vector[: values.size])
    spare = np.empty_like(vector)
    *before_blocks, last = _signs(seed, size)
    near, far = _factors(size)
    for part, byte in _parts(size, near):
        one, other = vector[part], spare[part]
        for signs in before_blocks:
            _flip(one, signs[byte])
            one, other = _multiply(one, other, _hadamard(BLOCK), 1)
        _flip(one, last[byte])
        for order, stride in near:
            one, other = _multiply(one, other, _hadamard(order), stride)
    if (len(before_blocks) + len(near)) % 2:
        vector, spare = spare, vector
    for order, stride in far:
        vector, spare = _multiply(vector, spare, _hadamard(order), stride)
    return vector


def rotate_back(rotated: NDArray[np.float32], seed: int, count: int) -> NDArray[np.float32]:
    """Return the first `count` values of the transpose of `rotate`; `rotated` is overwritten.

    Parameters
    ----------
    rotated : ndarray of float32, (N,)
        A vector of the size that `padded_size` gives for `count`.
    seed : int
        The seed that `rotate` was given.
    count : int
        Number of values before padding.

    Returns
    -------
    ndarray of float32, (count,)
        The vector before rotation, times `gain(N)`.

    Examples
    --------
    >>> x = np.array([1, 2, 3], np.float32)
    >>> (rotate_back(rotate(x, 5), 5, 3) / gain(64)).tolist()
    [1.0, 2.0, 3.0]
    """
    vector, spare = rotated, np.empty_like(rotated)
    *before_blocks, last = _signs(seed, rotated.size)
    near, far = _factors(rotated.size)
    for order, stride in far:
        vector, spare = _multiply(vector, spare, _hadamard(order).T, stride)
    for part, byte in _parts(rotated.size, near):
        one, other = vector[part], spare[part]
        for order, stride in near:
            one, other = _multiply(one, other, _hadamard(order).T, stride)
        _flip(one, last[byte])
        for signs in reversed(before_blocks):
            one, other = _multiply(one, other, _hadamard(BLOCK).T, 1)
            _flip(one, signs[byte])
    return (spare if (len(before_blocks) + len(near)) % 2 else vector)[:count]


def gain(size: int) -> float:
    """Return the factor by which a rotation to `size` values multiplies squared norms.

    Examples
    --------
    >>> gain(2048) == 64 * 2048
    True
    """
    return float(size * BLOCK ** _passes(size))


def _passes(size: int) -> int:
    return _PASSES if size <= _SMALL else 1


def _signs(seed: int, size: int) -> NDArray[np.uint8]:
    """Return the bits of the signs before each pass over blocks and before the last matrix, (passes + 1, size / 8)."""
    rows = _passes(size) + 1
    return shared(seed, rows * size // 64).astype("<u8").view(np.uint8).reshape(rows, size // 8)


def _flip(vector: NDArray[np.float32], signs: NDArray[np.uint8]) -> None:
    """Multiply `vector` by signs, eight to a byte, in place."""
    np.multiply(vector, _SIGNS.take(signs, axis=0).reshape(-1), out=vector)


Factors = list[tuple[int, int]]  # orders of matrices whose Kronecker product is a Hadamard matrix, each with its stride


def _factors(size: int) -> tuple[Factors, Factors]:
    """Return the factors of the matrix of order `size`: those within `_CHUNK` neighbouring values, and the others.

    Sylvester's matrices are cut into small ones, which takes fewer operations.
    """
    bits = (size & -size).bit_length() - 1
    paley, doublings = {1: (1, 0), 3: (24, 3), 5: (20, 2)}[size >> bits]
    parts = max(1, round((bits - doublings) / _BITS))
    orders = [paley, *(1 << (bits - doublings + place) // parts for place in range(parts))]
    strides = accumulate(orders[:-1], mul, initial=1)
    factors = [(order, stride) for order, stride in zip(orders, strides, strict=True) if order > 1]
    near = [(order, stride) for order, stride in factors if order * stride <= _CHUNK]
    return near, factors[len(near) :]


def _parts(size: int, near: Factors) -> Iterator[tuple[slice, slice]]:
    """Yield parts of a vector that the near factors do not leave, of about `_CHUNK` values, and of its signs' bytes."""
    order, stride = near[-1]
    length = order * stride * max(1, _CHUNK // (order * stride))
    for at in range(0, size, length):
        yield slice(at, at + length), slice(at // 8, (at + length) // 8)


def _multiply(
    vector: NDArray[np.float32], out: NDArray[np.float32], matrix: NDArray[np.float32], stride: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Write `matrix` times every vector of elements that are `stride` apart into `out`; return `out` and `vector`."""
    order = len(matrix)
    if stride == 1:
        np.matmul(vector.reshape(-1, order), matrix.T, out=out.reshape(-1, order))
    else:
        np.matmul(matrix, vector.reshape(-1, order, stride), out=out.reshape(-1, order, stride))
    return out, vector


@cache
def _hadamard(order: int) -> NDArray[np.float32]:
    """Return a Hadamard matrix: Sylvester's of a power of two, or Paley's of 20 or 24."""
    if order == 1:
        return np.ones((1, 1), np.float32)
    if order & (order - 1) == 0:
        return np.kron(np.array([[1, 1], [1, -1]], np.float32), _hadamard(order // 2))
    prime = order - 1
    squares = {i * i % prime for i in range(1, prime)}
    character = np.array([0, *(1 if i in squares else -1 for i in range(1, prime))])
    skew = np.zeros((order, order))
    skew[0, 1:], skew[1:, 0] = 1, -1
    skew[1:, 1:] = character[np.subtract.outer(np.arange(prime), np.arange(prime)) % prime]
    return (skew + np.eye(order)).astype(np.float32)
