"""A quantiser's step for a target, by regula falsi in logarithms: error and bytes are about powers of the step.

Dowell and Jarratt 1971, https://doi.org/10.1007/BF01934364, with bisection where a jump of the measure holds it up.
"""

import math
from collections.abc import Callable

_TRIALS = 24
_CLOSE = 0.02  # a measure this far below its target, in parts of it, is close enough
_NARROW = 0.02  # so are two steps, one on each side of the target, no further apart than this, in parts of them
_FURTHEST = 3.0  # log of the largest change of the step from one trial to the next


def find(measure: Callable[[float], float], target: float, start: float, *, slope: float) -> float | None:
    """Return a step for which `measure` is at most `target`, and close to it where it can be; None if none was found.

    `measure` rises about as step ** slope, or falls if `slope` is negative. It may jump, and rise and fall a little.
    """
    x = math.log(start)
    best: tuple[float, float] | None = None  # log of measure over target, log step: of those that hold the target
    below: tuple[float, float] | None = None  # log step, log of measure over target: the last that holds the target
    above: tuple[float, float] | None = None  # the last that does not
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
            # Where the measure rises more slowly than `slope` says, steps that trust it would only creep up.
            beyond = 1.2 * 2.0 ** max(0, trial - 2)
            x += max(-_FURTHEST, min(_FURTHEST, -(y + _CLOSE / 2) / slope * beyond))
            continue
        wide = above[0] - below[0]
        if abs(wide) < _NARROW:
            break
        # Every second time in the middle: a measure that jumps would hold one end for ever.
        part = 0.5 if trial % 2 else min(0.9, max(0.1, (below[1] + _CLOSE / 2) / (below[1] - above[1])))
        x = below[0] + wide * part
    return None if best is None else math.exp(best[1])
