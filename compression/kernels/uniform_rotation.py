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

import math
from collections.abc import Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray

from fedpress.common.rng import shared

BLOCK = 64  # the order of the matrices in blocks; every size is a multiple of it
_SMALL, _PASSES = 1024, 3  # passes over blocks up to this size; one beyond it
_CHUNK = 1 << 16  # values that are multiplied at once, to stay in the cache


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


def rotate(values: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Return the rotation of `values`, (n,), not normalised.

    Parameters
    ----------
    values : ndarray of float32, (n,)
        The vector x, with magnitudes of at most 1.
    seed : int
        Seed of the signs, below 2**64.

    Returns
    -------
    ndarray of float32, (N,)
        The rotated vector, whose norm is that of x times the root of `gain(N)`.

    Examples
    --------
    >>> x = np.array([3, 4], np.float32) / 4
    >>> float(np.square(rotate(x, 0)).sum() / np.square(x).sum()) == gain(64)
    True
    """
    size = padded_size(values.size)
    *before_blocks, last = _signs(seed, size)
    rotated = np.zeros(size, np.float32)
    rotated[: values.size] = values
    for signs in before_blocks:
        np.multiply(rotated, signs, out=rotated)
        _multiply(rotated, _hadamard(BLOCK), 1)
    np.multiply(rotated, last, out=rotated)
    for factor, stride in _factors(size):
        _multiply(rotated, _hadamard(factor), stride)
    return rotated


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
    *before_blocks, last = _signs(seed, rotated.size)
    for factor, stride in _factors(rotated.size):
        _multiply(rotated, _hadamard(factor).T, stride)
    np.multiply(rotated, last, out=rotated)
    for signs in reversed(before_blocks):
        _multiply(rotated, _hadamard(BLOCK).T, 1)
        np.multiply(rotated, signs, out=rotated)
    return rotated[:count]


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


def _signs(seed: int, size: int) -> NDArray[np.int8]:
    """Return the signs before each pass over blocks and before the last matrix, int8 (passes + 1, size)."""
    rows = _passes(size) + 1
    words = shared(seed, rows * size // 64).astype("<u8")
    bits = np.unpackbits(words.view(np.uint8), bitorder="little").view(np.int8)
    return np.subtract(1, 2 * bits, dtype=np.int8).reshape(rows, size)


def _factors(size: int) -> Iterator[tuple[int, int]]:
    """Yield the orders of the matrices whose Kronecker product is that of order `size`, each with its stride."""
    odd = size >> ((size & -size).bit_length() - 1)
    orders = [{1: 1, 3: 24, 5: 20}[odd]]
    while math.prod(orders) < size:
        orders.append(min(BLOCK, size // math.prod(orders)))
    stride = 1
    for order in orders:
        if order > 1:
            yield order, stride
        stride *= order


def _multiply(values: NDArray[np.float32], matrix: NDArray[np.float32], stride: int) -> None:
    """Multiply every vector of elements that are `stride` apart by `matrix`, in place."""
    order = len(matrix)
    if stride == 1:
        rows = values.reshape(-1, order)
        for at in range(0, len(rows), _CHUNK // order):
            part = rows[at : at + _CHUNK // order]
            part[:] = part @ matrix.T
        return
    groups = values.reshape(-1, order, stride)
    many, width = max(1, _CHUNK // (order * stride)), min(stride, _CHUNK // order)
    for at in range(0, len(groups), many):
        for column in range(0, stride, width):
            part = groups[at : at + many, :, column : column + width]
            part[:] = np.matmul(matrix, part)


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
