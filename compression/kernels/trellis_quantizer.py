"""Dependent quantisation by a trellis of four states, Marcellin and Fischer 1990, https://doi.org/10.1109/26.46532.

Two quantisers share the multiples of a step: the first has the even ones, the second zero and the odd ones. The parity
of each symbol selects the next one, so that a path through four states packs levels more densely than either alone.
Lane l of L takes the values l, L + l, 2 L + l ..., and follows a separate path from state 0; lanes run in parallel.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

_LENGTH = 256  # symbols of a path: long enough for its start to cost nothing, short enough for many lanes
_NEXT = np.array([[0, 2], [2, 0], [1, 3], [3, 1]], np.int8)  # by state and parity; states 2 and 3 use the odd levels
# The two ways into each state: from which state, at which parity.
_INTO = (((0, 0), (1, 1)), ((2, 0), (3, 1)), ((0, 1), (1, 0)), ((2, 1), (3, 0)))

Bits = Callable[[slice, NDArray[np.float32]], NDArray[np.float32]]  # of symbols' magnitudes, at a slice of the values


def lanes(size: int) -> int:
    """Return the number of lanes of `size` values."""
    return max(1, -(-size // _LENGTH))


def levels(symbols: NDArray[np.signedinteger]) -> NDArray[np.int32]:
    """Return the multiple of the step to which each symbol decodes, int32 (n,)."""
    out = np.empty(symbols.size, np.int32)
    count = lanes(symbols.size)
    state = np.zeros(count, np.int8)
    for first in range(0, symbols.size, count):
        symbol = symbols[first : first + count].astype(np.int32)
        now = state[: symbol.size]
        out[first : first + count] = 2 * symbol - np.sign(symbol) * (now >> 1)
        now[:] = _NEXT[now, symbol & 1]
    return out


def quantise(scaled: NDArray[np.float32], price: float, bits: Bits) -> NDArray[np.signedinteger]:
    """Return the symbols of values in steps, (n,), of least squared error plus `price` times bits."""
    size, count = scaled.size, lanes(scaled.size)
    cost = np.full((4, count), np.float32(1e30))
    cost[0] = 0
    most = float(np.abs(scaled).max(initial=0)) / 2 + 2
    dtype: type[np.signedinteger] = np.int8 if most < 127 else np.int16 if most < 32767 else np.int32
    chosen = np.zeros((size, 4), dtype)  # the symbol on the better way into each state
    way = np.zeros((size, 4), bool)  # which of the two ways that is
    for first in range(0, size, count):
        part = slice(first, min(first + count, size))
        now = cost[:, : part.stop - part.start]
        options = [_options(scaled[part], odd, price, part, bits) for odd in (False, True)]
        after = np.empty_like(now)
        for state, ways in enumerate(_INTO):
            (least, symbol), (other, symbols) = (_via(now, options, *step) for step in ways)
            second = other < least
            way[part, state] = second
            chosen[part, state] = np.where(second, symbols, symbol)
            after[state] = np.where(second, other, least)
        now[:] = after
    return _trace(cost, chosen, way, count)


Option = tuple[NDArray[np.float32], NDArray[np.int32]]  # cost and symbol of each lane


def _via(now: NDArray[np.float32], options: list[tuple[Option, Option]], origin: int, parity: int) -> Option:
    cost, symbol = options[origin >> 1][parity]
    return now[origin] + cost, symbol


def _options(scaled: NDArray[np.float32], odd: bool, price: float, part: slice, bits: Bits) -> tuple[Option, Option]:
    """Return the best even and the best odd symbol of each value under one of the two quantisers."""
    size = np.abs(scaled)
    low = np.floor((size + np.float32(odd)) / 2)  # its level is at most the value, the next one's is above
    cost, symbol = [], []
    for magnitude in (low, low + 1, np.zeros_like(low)):
        level = np.maximum(2 * magnitude - np.float32(odd), 0)
        cost.append((size - level) ** 2 + np.float32(price) * bits(part, magnitude))
        symbol.append(magnitude)
    even = low % 2 == 0
    one, two = (
        (np.where(even, cost[0], cost[1]), np.where(even, symbol[0], symbol[1])),
        (
            np.where(even, cost[1], cost[0]),
            np.where(even, symbol[1], symbol[0]),
        ),
    )
    zero = cost[2] < one[0]
    one = np.where(zero, cost[2], one[0]), np.where(zero, np.float32(0), one[1])
    first, second = ((c, np.copysign(m, scaled).astype(np.int32)) for c, m in (one, two))
    return first, second


def _trace(
    cost: NDArray[np.float32], chosen: NDArray[np.signedinteger], way: NDArray[np.bool_], count: int
) -> NDArray[np.signedinteger]:
    """Return the symbols on each lane's best path, from its end to its start."""
    out = np.empty(len(chosen), chosen.dtype)
    origin = np.array([[step[0] for step in ways] for ways in _INTO], np.int8)
    state = np.argmin(cost, axis=0)
    for first in range((len(chosen) - 1) // count * count, -1, -count):
        part = slice(first, min(first + count, len(chosen)))
        now = state[: part.stop - part.start]
        at = np.arange(part.start, part.stop)
        out[part] = chosen[at, now]
        now[:] = origin[now, way[at, now].astype(np.intp)]
    return out
