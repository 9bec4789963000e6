"""A quantiser's step for a target, by the secant method in logarithms: error and bytes are about powers of the step."""

import math
from collections.abc import Callable

_TRIALS = 24
_CLOSE = 0.01  # a measure this far below its target, in parts of it, is close enough
_FURTHEST = 3.0  # log of the largest change of the step from one trial to the next


def find(measure: Callable[[float], float], target: float, start: float, *, slope: float) -> float | None:
    """Return a step for which `measure` is at most `target`, and close to it where it can be; None if none was found.

    `measure` rises about as step ** slope, or falls if `slope` is negative.
    """
    x = math.log(start)
    below: tuple[float, float] | None = None  # log step, log of measure over target: holds the target
    above: tuple[float, float] | None = None  # does not
    for trial in range(_TRIALS):
        y = math.log(max(measure(math.exp(x)) / target, 1e-12))
        if y <= 0:
            if below is None or y > below[1]:
                below = (x, y)
            if y > -_CLOSE:
                break
        elif above is None or y < above[1] or (x - above[0]) * slope < 0:
            above = (x, y)
        if below is None or above is None:
            # Where the measure rises more slowly than `slope` says, steps that trust it would only creep up.
            beyond = 1.2 * 2.0 ** max(0, trial - 2)
            x += max(-_FURTHEST, min(_FURTHEST, -(y + _CLOSE / 2) / slope * beyond))
            continue
        if abs(above[0] - below[0]) < 1e-3:
            break
        part = (below[1] + _CLOSE / 2) / (below[1] - above[1])
        x = below[0] + (above[0] - below[0]) * min(0.9, max(0.1, part))
    return None if below is None else math.exp(below[0])
