"""A random subspace for each tensor, which both ends know: Li et al. 2018, https://arxiv.org/abs/1804.08838.

Values are hashed into buckets with random signs, as in HashedNets: Chen et al. 2015, https://arxiv.org/abs/1504.04788.
"""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fedpress.common.rng import words
from fedpress.compression.streams import FLOAT32_MAX

LEAST_DIMENSIONS = 256  # of a tensor's subspace; a tensor of no more values has no other
_BLOCK = 1 << 16  # values whose order is drawn at once


@dataclass(frozen=True, eq=False)
class Subspace:
    """Orthonormal directions, one for each bucket: the values of a bucket move together, each with its sign."""

    bucket: NDArray[np.uint32]  # of each value, (n,)
    negative: NDArray[np.bool_]  # whether the value moves against its bucket, (n,)
    scale: NDArray[np.float32]  # of each bucket, (d,): one over the root of the number of its values

    @property
    def dimensions(self) -> int:
        """Number of buckets, d."""
        return self.scale.size

    def project(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the coordinates, float32 (d,), of the point of the subspace that is closest to `values`, (n,)."""
        sums = np.zeros(self.dimensions)
        for part in _parts(values.size):
            signed = values[part].astype(np.float64)
            np.negative(signed, out=signed, where=self.negative[part])
            if signed.size <= self.dimensions:  # each in a bucket of its own
                sums[self.bucket[part]] += signed
            else:
                sums += np.bincount(self.bucket[part], signed, self.dimensions)
        return np.asarray(np.clip(sums * self.scale, -FLOAT32_MAX, FLOAT32_MAX), np.float32)

    def place(self, coordinates: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the point, float32 (n,), with these coordinates: the same bits on every machine."""
        values, scaled = np.empty(self.bucket.size, np.float32), coordinates * self.scale
        for part in _parts(values.size):
            values[part] = scaled[self.bucket[part]]
        np.negative(values, out=values, where=self.negative)
        return values


def _parts(size: int) -> Iterator[slice]:
    return (slice(first, min(first + _BLOCK, size)) for first in range(0, size, _BLOCK))


@lru_cache(maxsize=1024)
def subspace(name: str, size: int, share: float) -> Subspace | None:
    """Return the subspace of a tensor; None if it has all dimensions.

    Parameters
    ----------
    name : str
        Name of the tensor, which chooses the subspace.
    size : int
        Number of its values.
    share : float
        Dimensions over values; there are at least `LEAST_DIMENSIONS`.

    Returns
    -------
    Subspace or None
        The subspace.

    Examples
    --------
    >>> found = subspace("weight", 10_000, 0.1)
    >>> found.dimensions
    1000
    >>> coordinates = np.arange(1000, dtype=np.float32)
    >>> bool(np.allclose(found.project(found.place(coordinates)), coordinates))
    True
    """
    dimensions = max(LEAST_DIMENSIONS, math.ceil(share * size))
    if dimensions >= size:
        return None
    seed = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
    bucket, negative = np.empty(size, np.uint32), np.empty(size, np.bool_)
    for part in _parts(size):
        random = words(seed, part.start, part.stop - part.start)
        bucket[part][np.argsort(random, kind="stable")] = np.arange(part.start, part.stop) % dimensions
        negative[part] = random & np.uint64(1)
    counts = np.full(dimensions, size // dimensions)
    counts[: size % dimensions] += 1
    return Subspace(bucket, negative, (1 / np.sqrt(counts)).astype(np.float32))
