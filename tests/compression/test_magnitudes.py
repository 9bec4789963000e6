"""Whatever finite float32 an update holds, a codec sends it or raises its own error, and nothing warns."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fedpress.common.errors import UpdateError
from fedpress.compression import Layout, Update, parse
from fedpress.compression.registry import examples

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
MAGNITUDES = st.sampled_from([1e-45, 1e-38, 1e-30, 1e-10, 1.0, 1e10, 1e18, 1e20, 1e30, 3e38])


@st.composite
def updates(draw: st.DrawFn) -> Update:
    """Updates of one magnitude, of many, of equal values and of zeros."""
    shape = draw(st.sampled_from([(1, 1), (3, 2), (12, 10), (2, 40), (5, 3, 2)]))
    magnitude = draw(MAGNITUDES)
    with np.errstate(under="ignore"):
        unit = arrays.arrays(np.float64, shape, elements=st.floats(-1, 1))
        matrix = draw(
            st.one_of(
                unit.map(lambda part: (part * magnitude).astype(np.float32)),
                arrays.arrays(np.float32, shape, elements=FINITE, fill=st.just(0.0)),
                st.just(np.full(shape, magnitude, np.float32)),
                st.just(np.zeros(shape, np.float32)),
            )
        )
    return {"w": matrix, "b": draw(arrays.arrays(np.float32, 3, elements=FINITE)), "s": np.array(magnitude, np.float32)}


@pytest.mark.parametrize("spec", examples())
@settings(deadline=None, max_examples=15)
@given(update=updates())
def test_any_finite_update_is_sent_or_refused(spec: str, update: Update) -> None:
    codec, layout = parse(spec), Layout.of(update)
    state = codec.init(layout)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for turn in range(2):  # the second one has a residual, where the codec has memory
            try:
                frame, state = codec.encode(update, state, np.random.default_rng(turn))
            except UpdateError:
                return
            back = codec.decode(frame, layout)
            assert all(np.isfinite(array).all() for array in back.values())


@pytest.mark.parametrize("spec", [spec for spec in examples() if parse(spec).stateful])
def test_what_a_frame_left_out_is_finite_or_refused(spec: str) -> None:
    """A residual is the difference of two values that float32 holds, and may be one that it does not."""
    signs = np.sign(np.random.default_rng(0).standard_normal((40, 30))).astype(np.float32)
    update = {"w": signs * np.finfo(np.float32).max}
    codec = parse(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            _, state = codec.encode(update, codec.init(Layout.of(update)), np.random.default_rng(0))
        except UpdateError:
            return
    assert all(np.isfinite(array).all() for array in state.values())
