"""Scalar quantisation with a dead zone and fitted points, Sullivan 1996, https://doi.org/10.1109/18.532878.

A value of magnitude v becomes the integer below v / step + rounding; m decodes to (m + the point of its class) steps.
All functions work block by block, so that temporaries stay in the cache and are small compared with the update.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

CLASSES = 3  # of reconstruction points: magnitudes 1, 2, and 3 or more
LARGEST = 1 << 24  # symbols up to here are exact in float32
_GRAIN = np.float32(1 / 128)  # points are sent as multiples of this part of a step
_BLOCK = 1 << 16
_SAMPLE = 1 << 17  # values that points are fitted to
_MOST = np.finfo(np.float32).max


def blocks(size: int) -> Iterator[slice]:
    """Yield slices that cover `size` elements."""
    return (slice(first, first + _BLOCK) for first in range(0, size, _BLOCK))


def peak_of(values: NDArray[np.float32]) -> float:
    """Return the largest magnitude, 0 without values."""
    return max(-float(values.min(initial=0)), float(values.max(initial=0)))


def within_float32(step: float) -> float:
    """Return `step`, or the nearest number above 0 that does not become 0 or infinite as float32."""
    return min(max(step, float(np.finfo(np.float32).smallest_subnormal)), float(_MOST))


def quantise(values: NDArray[np.float32], step: float, rounding: float) -> NDArray[np.signedinteger]:
    """Return the symbols of `values` (n,) in the narrowest dtype; a `rounding` below 1/2 widens the dead zone.

    Examples
    --------
    >>> quantise(np.array([0.9, -2.2], np.float32), 1.0, 0.3).tolist()
    [1, -2]
    """
    peak = peak_of(values) / step + 1
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


def narrow(symbols: NDArray[np.signedinteger]) -> NDArray[np.signedinteger]:
    """Return `symbols` in the narrowest dtype that holds them."""
    peak = max(-int(symbols.min(initial=0)), int(symbols.max(initial=0)))
    return symbols.astype(np.int8 if peak <= 127 else np.int16 if peak <= 32767 else np.int32)


def fit(values: NDArray[np.float32], symbols: NDArray[np.signedinteger], step: float) -> NDArray[np.int8]:
    """Return the mean excess of magnitudes over their symbols, by class, int8 (CLASSES,), in 1/128 steps."""
    every = max(1, values.size // _SAMPLE)
    some, value = symbols[::every], values[::every]
    nonzero = np.flatnonzero(some)
    magnitude = np.abs(some[nonzero].astype(np.int32))
    excess = np.abs(value[nonzero]).astype(np.float64) / step - magnitude
    kind = np.minimum(magnitude, CLASSES)
    count = np.bincount(kind, minlength=CLASSES + 1)[1:]
    mean = np.bincount(kind, excess, minlength=CLASSES + 1)[1:] / np.maximum(count, 1)
    return np.asarray(np.clip(np.rint(mean / _GRAIN), -127, 127), np.int8)


def error(
    values: NDArray[np.float32], symbols: NDArray[np.signedinteger], step: float, point: NDArray[np.int8]
) -> float:
    """Return the squared error of the decoded `symbols`."""
    total = 0.0
    for part in blocks(values.size):
        off = values[part] / np.float32(step)  # in steps, so that squares are finite
        nonzero = np.flatnonzero(symbols[part])
        off[nonzero] -= reconstruct(symbols[part][nonzero], np.float32(1), point)
        total += float(np.dot(off, off))
    return total * step**2


def reconstruct(symbols: NDArray[np.signedinteger], step: np.float32, point: NDArray[np.int8]) -> NDArray[np.float32]:
    """Return the decoded `symbols`, float32 (n,), finite."""
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
