"""Classes of cells by their expected magnitude, in half octaves."""

import numpy as np
from numpy.typing import NDArray

CLASSES = 48  # class 0: zeros only; class c of at least 1: a mean magnitude of about 2 ** ((c - 30) / 2)
_UNIT = 30  # the class of mean magnitude 1

Shape = tuple[int, int]
Numbers = NDArray[np.unsignedinteger]


def level(mean: NDArray[np.float64] | float) -> NDArray[np.uint8]:
    """Return the class of each mean magnitude; 0 where it is 0. For encoders only: logarithms differ by machine."""
    mean = np.asarray(mean, np.float64)
    classes = np.clip(np.rint(2 * np.log2(np.maximum(mean, 1e-9))) + _UNIT, 1, CLASSES - 1)
    return np.where(mean > 0, classes, 0).astype(np.uint8)


def entropy_bits(counts: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return the bits at empirical entropy of tokens with these counts, (..., kinds), as (...,)."""
    total = counts.sum(axis=-1, keepdims=True)
    bits = np.where(counts > 0, counts * np.log2(np.maximum(total, 1) / np.maximum(counts, 1)), 0.0)
    return np.asarray(bits.sum(axis=-1))
