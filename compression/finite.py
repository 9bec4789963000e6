"""The range of what can be decoded: finite in float32, and in the dtype of the tensor where the value belongs."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fedpress.compression.layout import Layout

LARGEST = np.finfo(np.float32).max


def cut(values: NDArray[np.float32], edges: NDArray[np.int64], layout: Layout) -> NDArray[np.float32]:
    """Return `values`, (k,), cut to the largest finite number of their tensor's dtype, float32's where that is wider.

    `edges`, (t + 1,), say where each tensor's values begin. An approximation of a number near the end of its dtype's
    range can lie beyond that end.
    """
    values = np.clip(values, -LARGEST, LARGEST)
    for tensor, (start, stop) in zip(layout.lossy, pairwise(edges.tolist()), strict=True):
        if tensor.dtype == "float16":
            largest = np.finfo(np.float16).max.astype(np.float32)
            values[start:stop] = np.clip(values[start:stop], -largest, largest)
    return values
