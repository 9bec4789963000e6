"""Regula falsi for a quantiser's step, Dowell and Jarratt 1971, https://doi.org/10.1007/BF01934364.

It works on logarithms, since error and bytes are about powers of the step, with bisection in between for measures with
jumps.
"""

import math
from collections.abc import Callable

_TRIALS = 24
_CLOSE = 0.02  # the search ends if the measure is below its target by at most this share
_NARROW = 0.02  # or if two steps, one on each side of the target, differ by at most this share
_FURTHEST = 3.0  # log of the largest change of the step from one trial to the next


def find(measure: Callable[[float], float], target: float, start: float, *, slope: float) -> float | None:
    """Return a step for which `measure` is at most `target`, and close to it if possible; None if it is not found.

    Parameters
    ----------
    measure : callable
        Rises about as step ** slope, or falls if `slope` is negative; it may have jumps.

    Examples
    --------
    >>> round(find(lambda step: step**2, 4.0, 1.0, slope=2.0), 2)
    1.99
    """
    x = math.log(start)
    best: tuple[float, float] | None = None  # log of measure over target, log step: the best step within the target
    below: tuple[float, float] | None = None  # log step, log of measure over target: the last within the target
    above: tuple[float, float] | None = None  # the last beyond the target
    for trial in range(_TRIALS):
        y = math.log(max(measure(math.exp(x)) / target, 1e-12))
        if y <= 0:
            best = max(best or (y, x), (y, x))
            below = (x, y)
            if y > -_CLOSE:
                break
        else:
            above = (x, y)
        if below is None or above is None:
            # If the measure rises more slowly than `slope`, steps by `slope` alone would converge slowly.
            beyond = 1.2 * 2.0 ** max(0, trial - 2)
            x += max(-_FURTHEST, min(_FURTHEST, -(y + _CLOSE / 2) / slope * beyond))
            continue
        wide = above[0] - below[0]
        if abs(wide) < _NARROW:
            break
        # Every second trial bisects: with a measure that jumps, one end would never move.
        part = 0.5 if trial % 2 else min(0.9, max(0.1, (below[1] + _CLOSE / 2) / (below[1] - above[1])))
        x = below[0] + wide * part
    return None if best is None else math.exp(best[1])
