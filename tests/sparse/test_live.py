"""Laws of masks of pruned weights: selected weights are restored, and both ends have the same masks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpress.compression import FrameError, Layout, parse
from fedpress.compression.entropy import bitmask_coder
from fedpress.compression.frame import ByteReader
from fedpress.compression.weight_masks import UNPRUNED, WeightMasks, decode_mask_change, encode_mask_change, prunable


def model_of(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "conv": rng.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "bias": np.zeros(4, np.float32) * -1,
        "wide": rng.normal(size=(9, 20)).astype(np.float32).astype(np.float64),  # floats travel as float32
        "half": rng.normal(size=(6, 5)).astype(np.float16),
        "steps": np.array([[3, 4], [5, 6]]),
    }


def pruned(model: dict[str, np.ndarray], share: float, seed: int = 1) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    layout = Layout.of(model)
    return WeightMasks({t.name: rng.random(t.size) > share for t in prunable(layout)}).apply(model)


seeds, shares = st.integers(0, 50), st.sampled_from([0.0, 0.02, 0.5, 0.9, 1.0])


@given(seeds, shares)
@settings(max_examples=40, deadline=None)
def test_masks_are_read_from_the_model(seed: int, share: float) -> None:
    model = pruned(model_of(seed), share)
    layout = Layout.of(model)
    masks = WeightMasks.of(model, layout)
    assert "bias" not in masks.by_name  # a vector's minus zero is a zero
    assert masks.equals(WeightMasks.of(masks.apply(model), layout))
    taken = masks.select(model)
    assert Layout.of(taken) == masks.unpruned(layout)
    back = masks.apply(masks.restore(taken, layout))
    assert {name: array.tobytes() for name, array in back.items()} == {n: a.tobytes() for n, a in model.items()}
    frame, _ = parse("none").encode(taken, {}, np.random.default_rng(0))
    np.testing.assert_equal(parse("none").decode(frame, masks.unpruned(layout)), taken)


@given(seeds, shares, shares, st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_change_leads_from_any_model_to_any_mask(seed: int, before: float, after: float, known: bool) -> None:
    base, new = pruned(model_of(seed), before), pruned(model_of(seed), after, seed=2)
    layout = Layout.of(base)
    masks = WeightMasks.of(new, layout)
    start = base if known else None
    data = encode_mask_change(masks, start, layout)
    assert decode_mask_change(data, start, layout).equals(masks)
    assert bool(data) == (not masks.equals(WeightMasks.of(base, layout) if known else UNPRUNED))


@given(st.binary(max_size=80))
@settings(max_examples=200, deadline=None)
def test_bytes_from_outside_raise_frame_errors_only(data: bytes) -> None:
    model = pruned(model_of(0), 0.5)
    layout = Layout.of(model)
    for read in (
        lambda: decode_mask_change(data, model, layout),
        lambda: decode_mask_change(data, None, layout),
    ):
        try:
            read()
        except FrameError:
            continue


def test_cut_and_changed_bytes_are_noticed_or_lead_elsewhere() -> None:
    base, new = pruned(model_of(0), 0.3), pruned(model_of(0), 0.8, seed=2)
    layout = Layout.of(base)
    data = encode_mask_change(WeightMasks.of(new, layout), base, layout)
    for end in range(1, len(data)):
        with pytest.raises(FrameError):
            decode_mask_change(data[:end], base, layout)


def test_masks_of_small_weights_take_few_bytes() -> None:
    """Both ends predict the pruned weights from the model: a mask takes fewer bits than its density needs."""
    rng = np.random.default_rng(3)
    model = {"w": rng.normal(size=(200, 200)).astype(np.float32)}
    layout = Layout.of(model)
    size = np.abs(model["w"]).ravel()
    masks = WeightMasks({"w": size * rng.lognormal(0, 0.1, size.size) > np.quantile(size, 0.3)})
    told = len(encode_mask_change(masks, model, layout))
    blind = len(encode_mask_change(masks, None, layout))
    assert told < blind / 2
    assert encode_mask_change(WeightMasks.of(masks.apply(model), layout), masks.apply(model), layout) == b""


def test_a_residual_follows_the_unpruned_weights() -> None:
    """State of pruned weights is dropped, that of restored ones starts at zero, all else stays."""
    model = model_of(0)
    layout = Layout.of(model)
    old, new = (WeightMasks.of(pruned(model, 0.5, seed), layout) for seed in (1, 2))
    state = {"residual": np.arange(1, old.unpruned(layout).size + 1, dtype=np.float32), "0.left": np.ones((3, 2))}
    moved = new.select_state(old.restore_state(state, layout), layout)
    assert moved["residual"].shape == (new.unpruned(layout).size,)
    before, after = (
        masks.restore(masks.unpruned(layout).unflatten(values, np.zeros(layout.exact_nbytes, np.uint8)), layout)
        for masks, values in ((old, state["residual"]), (new, moved["residual"]))
    )
    for tensor in prunable(layout):
        both = (old.mask(tensor) & new.mask(tensor)).reshape(tensor.shape)
        np.testing.assert_array_equal(after[tensor.name], np.where(both, before[tensor.name], 0))
    np.testing.assert_array_equal(after["bias"], before["bias"])
    assert moved["0.left"].shape == (3, 2)


def test_marks_of_every_kind() -> None:
    rng = np.random.default_rng(0)
    for size in (0, 1, 7, 70_000):
        for share in (0.0, 0.01, 0.5, 1.0):
            classes = rng.integers(0, 5, size).astype(np.uint8) * 50
            bits = rng.random(size) < share * (classes + 1) / 201
            reader = ByteReader(bitmask_coder.encode(bits, classes))
            np.testing.assert_array_equal(bitmask_coder.decode(reader, classes), bits)
            reader.end()
