"""A random subspace for each tensor, which both ends know: Li et al. 2018, https://arxiv.org/abs/1804.08838.

Values are hashed into buckets with random signs, as in HashedNets: Chen et al. 2015, https://arxiv.org/abs/1504.04788.
"""

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fedpress.common.rng import shared

LEAST = 256  # dimensions of a tensor's subspace; a tensor of no more values has no other


@dataclass(frozen=True, eq=False)
class Subspace:
    """Orthonormal directions, one for each bucket: the values of a bucket move together, each with its sign."""

    bucket: NDArray[np.intp]  # of each value, (n,)
    factor: NDArray[np.float32]  # of each value, (n,): its sign over the root of the number of values in its bucket
    dimensions: int  # number of buckets, d

    def project(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the coordinates, float32 (d,), of the point of the subspace that is closest to `values`, (n,)."""
        return np.bincount(self.bucket, values * self.factor, self.dimensions).astype(np.float32)

    def place(self, coordinates: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the point, float32 (n,), with these coordinates: the same bits on every machine."""
        return np.asarray(coordinates[self.bucket] * self.factor, np.float32)


@lru_cache(maxsize=64)
def subspace(name: str, size: int, share: float) -> Subspace | None:
    """Return the subspace of a tensor; None if it has all dimensions.

    Parameters
    ----------
    name : str
        Name of the tensor, which chooses the subspace.
    size : int
        Number of its values.
    share : float
        Dimensions over values; there are at least `LEAST` dimensions.

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
    dimensions = max(LEAST, math.ceil(share * size))
    if dimensions >= size:
        return None
    seed = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
    random = shared(seed, size)
    bucket = np.empty(size, np.intp)
    bucket[np.argsort(random, kind="stable")] = np.arange(size) % dimensions
    sign = 1 - 2 * (random & np.uint64(1)).astype(np.float64)
    factor = sign / np.sqrt(np.bincount(bucket, minlength=dimensions))[bucket]
    return Subspace(bucket, factor.astype(np.float32), dimensions)
