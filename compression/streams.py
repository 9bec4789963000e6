"""What stages say to each other: the names of streams, and how to take them in without trusting them.

values   float32 (k,)   the update's floats, all of them or those that a sparsifier kept
gap      uint32 (k,)    how many floats a sparsifier dropped before each kept one
symbols  int (k,)       the quantised values, in the narrowest dtype that the stage can do with
scale    float32 (t,)   a quantiser's scale for each float tensor
exact    uint8 (b,)     bytes of the tensors that are not floats
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fedpress.compression.errors import FrameError, SpecError
from fedpress.compression.layout import Layout


def values_of(streams: Mapping[str, NDArray[Any]], stage: object) -> NDArray[np.float32]:
    """Return "values" for encoding; raise SpecError if an earlier stage has turned them into something else."""
    values = streams.get("values")
    if values is None or values.dtype != np.float32:
        raise SpecError(f"{stage} works on float32 values, and what stands before it leaves none")
    return values


def take(streams: Mapping[str, NDArray[Any]], name: str, dtype: DTypeLike, size: int | None = None) -> NDArray[Any]:
    """Return a stream that came from outside; raise FrameError if it is missing, or of another dtype or size."""
    array = streams.get(name)
    if array is None or array.dtype != np.dtype(dtype):
        raise FrameError(f"stream {name!r} of {np.dtype(dtype).name} is missing")
    if size is not None and array.size != size:
        raise FrameError(f"stream {name!r} has {array.size} elements, {size} are due")
    return array


def without(streams: Mapping[str, NDArray[Any]], *names: str) -> dict[str, NDArray[Any]]:
    """Return the other streams."""
    return {name: array for name, array in streams.items() if name not in names}


def positions(gap: NDArray[Any], size: int) -> NDArray[np.int64]:
    """Return where the kept values stand, int64 (k,) ascending and below `size`; raise FrameError if they cannot."""
    at = np.cumsum(gap, dtype=np.int64) + np.arange(gap.size)
    # Each gap is below 2**32, so the sum cannot wrap around; the last position is the largest.
    if at.size and at[-1] >= size:
        raise FrameError(f"a kept value stands at {at[-1]}, the layout has {size}")
    return at


def bounds(streams: Mapping[str, NDArray[Any]], layout: Layout) -> NDArray[np.int64]:
    """Return where each float tensor's part of the values begins, int64 (t + 1,), the end last."""
    edges = np.cumsum([0, *(tensor.size for tensor in layout.lossy)], dtype=np.int64)
    if "gap" not in streams:
        return edges
    return np.searchsorted(positions(streams["gap"], layout.size), edges).astype(np.int64)
