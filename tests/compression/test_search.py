"""Laws of the search for a step: what can be reached is found, close to the target, whatever the measure's slope."""

import math

from hypothesis import example, given
from hypothesis import strategies as st

from fedpress.compression.kernels.regula_falsi import find


@given(
    st.floats(0.15, 6.0),
    st.booleans(),
    st.floats(1e-3, 0.9),
    st.floats(-4, 4),
)
@example(0.3, False, 0.5, 0.25)
def test_a_power_of_the_step_is_solved_whatever_the_power(
    power: float, falls: bool, target: float, away: float
) -> None:
    """The first guess is off by a factor of up to e^4 in the measure, the assumed slope by up to ten times."""
    exponent, slope = (-power, -1.0) if falls else (power, 1.5)
    start = math.exp((math.log(target) + away) / exponent)
    seen: list[float] = []

    def measure(step: float) -> float:
        seen.append(step)
        return math.exp(exponent * math.log(step)) if abs(exponent * math.log(step)) < 700 else math.inf

    found = find(measure, target, start, slope=slope)
    assert found is not None
    assert 0.9 * target < measure(found) <= target * (1 + 1e-9)
    assert len(seen) <= 25


def test_a_measure_that_creeps_up_to_its_target_is_found() -> None:
    """As the error of a low-rank approximation does, where it is rank that holds it up and not the step."""

    def measure(step: float) -> float:
        return 0.495 + 0.23 * step if step > 0.02 else 0.49 * step / 0.02

    found = find(measure, 0.5, 1.0, slope=1.5)
    assert found is not None
    assert 0.49 < measure(found) <= 0.5
