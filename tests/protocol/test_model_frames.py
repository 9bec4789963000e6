"""The law of deltas: what the server's frames lead to is what a node makes of them, bit for bit."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpress.common.errors import FrameError
from fedpress.compression import Layout, Update, parse
from fedpress.compression.updates import version_of
from fedpress.compression.weight_masks import WeightMasks
from fedpress.protocol.model_frames import ModelFrames, Target, apply_frames, make_delta, make_key

from .models import SHAPES, a_model, request_of, same

CODECS = ["none", "uniform(8) | ans", "qsgd(4) | ans", "lowrank(nmse=0.3) | ans", "topk(0.2) | ans", "zstd(3)"]


def drifted(rng: np.random.Generator, model: Update, names: list[str], pruned: float) -> Update:
    """A model of which only some tensors are others."""
    other = a_model(rng, list(model), pruned)
    return {name: other[name] if name in names else array for name, array in model.items()}


def received(frames: ModelFrames) -> ModelFrames:
    """The frames after they were sent in one piece."""
    return replace(ModelFrames.split(frames.data, request_of(frames)), base=frames.base)


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.random.Generator, Update, Update, bool, str]:
    """A base, what it is to become, whether weights may be pruned, and a codec."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    names = ["weight", *draw(st.lists(st.sampled_from([name for name in SHAPES if name != "weight"]), unique=True))]
    masks = draw(st.booleans())
    pruned = [draw(st.sampled_from([0.0, 0.3, 0.9])) if masks else 0.0 for _ in range(2)]
    base = a_model(rng, names, pruned[0])
    model = drifted(rng, base, draw(st.lists(st.sampled_from(names), unique=True)), pruned[1])
    return rng, base, model, masks, draw(st.sampled_from(CODECS))


def target_of(model: Update, *, masks: bool) -> Target:
    layout = Layout.of(model)
    return Target(model, layout, WeightMasks.of(model, layout) if masks else None)


@settings(deadline=None, max_examples=150)
@given(case=cases())
def test_a_delta_leads_where_the_server_says(case: tuple[np.random.Generator, Update, Update, bool, str]) -> None:
    rng, base, model, masks, codec = case
    target = target_of(model, masks=masks)
    version = version_of(base, target.layout)
    frames, there = make_delta(target, base, version, parse(codec), rng)
    frames = replace(frames, version=version_of(there, target.layout))
    assert received(frames) == frames
    assert (frames.is_key, frames.base) == (False, version)
    here = apply_frames(received(frames), base, target.layout, weight_masks=masks)
    assert same(here, there)
    for name in (t.name for t in target.layout.tensors if not t.lossy and not t.floating):
        assert here[name].tobytes() == model[name].tobytes()
    if masks:
        assert WeightMasks.of(here, target.layout).equals(WeightMasks.of(model, target.layout))


@settings(deadline=None, max_examples=100)
@given(case=cases())
def test_a_key_leads_where_the_server_says_from_nothing(
    case: tuple[np.random.Generator, Update, Update, bool, str],
) -> None:
    rng, base, model, masks, codec = case
    target = target_of(model, masks=masks)
    frames, there = make_key(target, parse(codec), rng)
    frames = replace(frames, version=version_of(there, target.layout))
    assert (frames.is_key, frames.base) == (True, b"")
    for held in ({}, base):
        assert same(apply_frames(received(frames), held, target.layout, weight_masks=masks), there)
    if codec == "none":
        assert same(there, model)


@settings(deadline=None, max_examples=100)
@given(case=cases())
def test_a_wrong_base_is_noticed(case: tuple[np.random.Generator, Update, Update, bool, str]) -> None:
    rng, base, model, masks, codec = case
    target = target_of(model, masks=masks)
    frames, there = make_delta(target, base, version_of(base, target.layout), parse(codec), rng)
    frames = replace(frames, version=version_of(there, target.layout))
    wrong = {**base, "weight": base["weight"] + np.float32(1)}
    wrong["weight"][0, 0] = np.float32(1e6)
    try:
        reached = apply_frames(received(frames), wrong, target.layout, weight_masks=masks)
    except FrameError:
        return
    assert same(reached, there)  # all of it was in the frames


def test_no_frames_lead_from_a_model_to_itself() -> None:
    model = a_model(np.random.default_rng(0), [*SHAPES], 0.5)
    layout = Layout.of(model)
    frames = ModelFrames((), (), (), version=version_of(model, layout))
    assert not frames.is_key
    assert same(apply_frames(received(frames), model, layout, weight_masks=True), model)
    with pytest.raises(FrameError):
        apply_frames(frames, {**model, "bias": model["bias"] + 1}, layout, weight_masks=True)


def test_a_delta_may_be_aimed_at_another_model() -> None:
    rng = np.random.default_rng(0)
    base, model = (a_model(rng, [*SHAPES], 0.0) for _ in range(2))
    aim = {**model, "bias": model["bias"] + np.float32(1)}
    target = target_of(model, masks=False)
    _, there = make_delta(target, base, b"base-of-", parse("none"), rng, aim=aim)
    np.testing.assert_allclose(there["bias"], aim["bias"], rtol=1e-5)


@pytest.mark.parametrize(("lengths", "mask"), [((5,), 0), ((), 5), ((1, 2), 0)])
def test_lengths_that_do_not_fit_the_data_are_refused(lengths: tuple[int, ...], mask: int) -> None:
    request = replace(
        request_of(ModelFrames((), (), ())),
        frame_lengths=lengths,
        frame_specs=("none",) * len(lengths),
        frame_tensors=(b"",) * len(lengths),
        weight_mask_length=mask,
    )
    with pytest.raises(FrameError):
        ModelFrames.split(b"four", request)


def test_a_whole_model_after_a_delta_is_refused() -> None:
    rng = np.random.default_rng(0)
    base, model = (a_model(rng, ["weight", "bias"], 0.0) for _ in range(2))
    target, codec = target_of(model, masks=False), parse("none")
    delta, key = make_delta(target, base, b"one-base", codec, rng)[0], make_key(target, codec, rng)[0]
    both = ModelFrames(delta.frames + key.frames, ("none", "none"), (b"", b""))
    with pytest.raises(FrameError):
        ModelFrames.split(both.data, request_of(both))


@pytest.mark.parametrize("codec", CODECS)
def test_a_delta_from_another_version_or_of_another_codec_is_refused(codec: str) -> None:
    """Frames leave out their base and their codec, and are checked against them all the same."""
    rng = np.random.default_rng(0)
    base, model = (a_model(rng, ["weight", "bias"], 0.0) for _ in range(2))
    target = target_of(model, masks=False)
    frames, there = make_delta(target, base, b"one-base", parse(codec), rng)
    frames = replace(frames, version=version_of(there, target.layout))
    for wrong in ({"base": b"another."}, {"base": b""}, {"specs": ("uniform(7) | ans",)}, {"specs": ("garbage",)}):
        with pytest.raises(FrameError):
            apply_frames(replace(frames, **wrong), base, target.layout, weight_masks=False)
