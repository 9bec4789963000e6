"""Scalar quantisation with a dead zone and fitted points, Sullivan 1996, https://doi.org/10.1109/18.532878.

A value of magnitude v becomes the integer below v / step + rounding; m stands for (m + its class's point) steps.
Everything works block by block: the temporaries stay in the cache, and are small beside the update.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

CLASSES = 3  # magnitudes 1, 2, and 3 or more have points of their own
LARGEST = 1 << 24  # symbols up to here are exact in float32
_GRAIN = np.float32(1 / 128)  # points are sent as multiples of this part of a step
_BLOCK = 1 << 16
_MOST = np.finfo(np.float32).max


def blocks(size: int) -> Iterator[slice]:
    """Yield slices that cover `size` elements."""
    return (slice(first, first + _BLOCK) for first in range(0, size, _BLOCK))


def quantise(values: NDArray[np.float32], step: float, rounding: float) -> NDArray[np.signedinteger]:
    """Return the symbols of `values` (n,) in the narrowest dtype; a `rounding` below 1/2 widens the dead zone."""
    peak = float(np.abs(values).max(initial=0)) / step + 1
    dtype: type[np.signedinteger] = np.int8 if peak < 127 else np.int16 if peak < 32767 else np.int32
    symbols = np.empty(values.size, dtype)
    scale = np.float32(1 / step) if 1 / step < 1e38 else None
    for part in blocks(values.size):
        value = values[part]
        level = np.abs(value)
        level = np.divide(level, np.float32(step), out=level) if scale is None else np.multiply(level, scale, out=level)
        level += np.float32(rounding)
        np.floor(level, out=level)
        np.copysign(level, value, out=level)
        symbols[part] = level
    return symbols


def moments(values: NDArray[np.float32], symbols: NDArray[np.signedinteger], step: float) -> NDArray[np.float64]:
    """Return for each class of magnitudes, 0 too: count, sum of excess, sum of its square, in steps, (CLASSES + 1, 3).

    The excess is how much larger a value's magnitude is than its symbol's.
    """
    out = np.zeros((CLASSES + 1, 3))
    for part in blocks(values.size):
        value = values[part]
        live = np.flatnonzero(symbols[part])  # few, as a rule
        out[0] += value.size, 0, float(np.dot(value, value)) / step**2
        if not live.size:
            continue
        magnitude = np.abs(symbols[part][live]).astype(np.int32)
        size = np.abs(value[live]).astype(np.float64) / step
        out[0] -= live.size, 0, float(np.dot(size, size))
        excess = size - magnitude
        kind = np.minimum(magnitude, CLASSES)
        for column, weights in enumerate((None, excess, excess * excess)):
            out[:, column] += np.bincount(kind, weights, minlength=CLASSES + 1)
    return out


def points(of: NDArray[np.float64]) -> NDArray[np.int8]:
    """Return each class's mean excess, int8 (CLASSES,), in grains of a step, from `moments`."""
    mean = of[1:, 1] / np.maximum(of[1:, 0], 1)
    return np.rint(mean / _GRAIN).clip(-127, 127).astype(np.int8)


def error(of: NDArray[np.float64], step: float) -> float:
    """Return the squared error under the points that `points` fits, from `moments`."""
    shift = np.concatenate([[0.0], points(of) * float(_GRAIN)])
    return float((of[:, 2] - 2 * shift * of[:, 1] + shift**2 * of[:, 0]).sum()) * step**2


def reconstruct(symbols: NDArray[np.signedinteger], step: np.float32, point: NDArray[np.int8]) -> NDArray[np.float32]:
    """Return what `symbols` stand for, float32 (n,), at most float32's largest."""
    table = np.arange(-CLASSES, CLASSES + 1, dtype=np.float32)  # the excess, with its sign, by symbol
    signs = np.sign(table)
    shift = np.concatenate([point[::-1], [0], point]).astype(np.float32) * _GRAIN * signs
    out = np.empty(symbols.size, np.float32)
    with np.errstate(over="ignore"):
        for part in blocks(symbols.size):
            symbol = symbols[part]
            level = symbol.astype(np.float32)
            level += shift.take(np.clip(symbol, -CLASSES, CLASSES).astype(np.int8) + np.int8(CLASSES))
            np.multiply(level, step, out=out[part])
            if float(step) * (float(np.abs(level).max(initial=0)) + 1) > 1e38:
                np.clip(out[part], -_MOST, _MOST, out=out[part])
    return out
