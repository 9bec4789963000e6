"""The streams between stages: their names, and functions that read and check them.

values   float32 (k,)   the update's floats, all of them or those that a sparsifier kept
gap      uint32 (k,)    number of floats that a sparsifier dropped before each kept one
coin     uint64 (2,)    a seed, and a limit: a float is kept if the word drawn for it from the seed is below
symbols  int (k,)       the quantised values, in the narrowest dtype that holds the stage's
scale    float32 (t,)   a quantiser's scale for each float tensor
exact    uint8 (b,)     bytes of the tensors that codecs may not approximate
side     float32 (n,)   values of an update that both ends have: given to stages that take it, never sent
"""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fedpress.common.errors import FrameError, SpecError
from fedpress.common.rng import words
from fedpress.compression.layout import Layout

SIDE = "side"
POSITION_STREAMS = ("gap", "coin")  # give the positions of kept values; a frame has at most one of them
_BLOCK = 1 << 16
FLOAT32_MAX = float(np.finfo(np.float32).max)


def values_of(streams: Mapping[str, NDArray[Any]], stage: object) -> NDArray[np.float32]:
    """Return "values" for encoding; raise SpecError if an earlier stage replaced them."""
    values = streams.get("values")
    if values is None or values.dtype != np.float32:
        raise SpecError(f"{stage} must be given float32 values: a stage before it leaves none")
    return values


def whole_update(streams: Mapping[str, NDArray[Any]], stage: object) -> NDArray[np.float32]:
    """Return "values" for encoding; raise SpecError if an earlier stage dropped some of the update's."""
    if any(name in streams for name in POSITION_STREAMS):
        raise SpecError(f"{stage} must be given the whole update: it cannot follow another sparsifier")
    return values_of(streams, stage)


def take(streams: Mapping[str, NDArray[Any]], name: str, dtype: DTypeLike, size: int | None = None) -> NDArray[Any]:
    """Return a stream of a frame; raise FrameError if it is missing, or of another dtype or size."""
    array = streams.get(name)
    if array is None or array.dtype != np.dtype(dtype):
        raise FrameError(f"stream {name!r} of {np.dtype(dtype).name} is missing")
    if size is not None and array.size != size:
        raise FrameError(f"stream {name!r} must have {size} elements, got {array.size}")
    return array


def without(streams: Mapping[str, NDArray[Any]], *names: str) -> dict[str, NDArray[Any]]:
    """Return the streams with other names."""
    return {name: array for name, array in streams.items() if name not in names}


def gaps(keep: NDArray[np.bool_]) -> NDArray[np.uint32]:
    """Return the number of False elements before each True one, uint32 (k,)."""
    out = np.empty(np.count_nonzero(keep), np.uint32)
    last, at = -1, 0
    for first in range(0, keep.size, _BLOCK):
        found = np.flatnonzero(keep[first : first + _BLOCK]) + first
        if found.size:
            out[at : at + found.size] = np.diff(found, prepend=last) - 1
            last, at = int(found[-1]), at + found.size
    return out


def positions(streams: Mapping[str, NDArray[Any]], layout: Layout) -> Iterator[NDArray[np.int64]]:
    """Yield the positions of the kept values, ascending, block by block; raise FrameError if they are not given."""
    found = [name for name in POSITION_STREAMS if name in streams]
    if len(found) != 1:
        raise FrameError(f"positions of kept values must be in one stream, got {', '.join(found) or 'none'}")
    if found == ["gap"]:
        yield from _by_gap(take(streams, "gap", np.uint32), layout.size)
        return
    seed, limit = take(streams, "coin", np.uint64, 2)
    for first in range(0, layout.size, _BLOCK):
        yield np.flatnonzero(words(int(seed), first, min(_BLOCK, layout.size - first)) < limit) + first


def _by_gap(gap: NDArray[np.uint32], size: int) -> Iterator[NDArray[np.int64]]:
    last = -1
    for first in range(0, gap.size, _BLOCK):
        at = np.cumsum(gap[first : first + _BLOCK].astype(np.int64) + 1) + last
        last = int(at[-1])
        if last >= size:
            raise FrameError(f"positions of kept values must be below {size}, got {last}")
        yield at


def kept_values(
    values: NDArray[np.float32], streams: Mapping[str, NDArray[Any]], layout: Layout
) -> NDArray[np.float32]:
    """Return the elements of `values`, all of the update's, that are kept."""
    return np.concatenate([np.zeros(0, np.float32), *(values[at] for at in positions(streams, layout))])


def scatter(streams: Mapping[str, NDArray[Any]], layout: Layout) -> NDArray[np.float32]:
    """Return the kept values at their positions, float32 (n,), and zero elsewhere; raise FrameError."""
    few = take(streams, "values", np.float32)
    values = np.zeros(layout.size, np.float32)
    count = 0
    for at in positions(streams, layout):
        if count + at.size > few.size:
            raise FrameError(f"{few.size} kept values must have as many positions, got more")
        values[at] = few[count : count + at.size]
        count += at.size
    if count != few.size:
        raise FrameError(f"{few.size} kept values must have as many positions, got {count}")
    return values


def tensor_bounds(streams: Mapping[str, NDArray[Any]], layout: Layout) -> NDArray[np.int64]:
    """Return where each float tensor's part of the values begins, int64 (t + 1,), and last where they end."""
    edges = np.cumsum([0, *(tensor.size for tensor in layout.lossy)], dtype=np.int64)
    if not any(name in streams for name in POSITION_STREAMS):
        return edges
    before = np.zeros_like(edges)
    for at in positions(streams, layout):
        before += np.searchsorted(at, edges)
    return before


def tensor_parts(array: NDArray[Any], edges: NDArray[np.int64]) -> Iterator[NDArray[Any]]:
    """Yield each tensor's part of `array`, a view."""
    return (array[start:stop] for start, stop in pairwise(edges.tolist()))


def take_symbols(
    streams: Mapping[str, NDArray[Any]], layout: Layout, dtype: DTypeLike, low: int, high: int
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return "symbols" of a frame and the tensors' bounds; raise FrameError if a symbol is out of range."""
    edges = tensor_bounds(streams, layout)
    symbols = take(streams, "symbols", dtype, int(edges[-1]))
    if symbols.size and not (low <= int(symbols.min()) and int(symbols.max()) <= high):
        raise FrameError(f"symbols must be {low} to {high}")
    return symbols, edges


def scaled(symbols: NDArray[Any], scale: NDArray[np.float32], edges: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return symbols times their tensor's scale, float32 (k,), finite; raise FrameError if a scale is not finite."""
    if not np.isfinite(scale).all():
        raise FrameError("scales must be finite")
    values = symbols.astype(np.float32)
    with np.errstate(over="ignore"):
        for part, factor in zip(tensor_parts(values, edges), scale, strict=True):
            np.multiply(part, factor, out=part)
    return np.clip(values, -FLOAT32_MAX, FLOAT32_MAX, out=values)
