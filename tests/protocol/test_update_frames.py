"""The law of updates: the server decodes what a node encoded, and nothing that is not pruned is lost."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpress.common.errors import FrameError
from fedpress.compression import Layout, parse
from fedpress.compression.updates import difference
from fedpress.compression.weight_masks import UNPRUNED, WeightMasks
from fedpress.protocol.update_frames import UpdateCoding

from .models import SHAPES, a_model, same

CODECS = ["none", "uniform(8) | ans", "qsgd(4) | ans", "ef | topk(0.2) | ans", "ef | lowrank(nmse=0.3) | ans"]
VERSION = b"trained."


@settings(deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 2**32),
    codec=st.sampled_from(CODECS),
    names=st.lists(st.sampled_from([name for name in SHAPES if name != "weight"]), unique=True),
    moved=st.sets(st.sampled_from([*SHAPES])),
    pruned=st.sampled_from([0.0, 0.5]),
    side=st.booleans(),
)
def test_the_server_decodes_what_a_node_encoded(
    seed: int, codec: str, names: list[str], moved: set[str], pruned: float, side: bool
) -> None:
    rng = np.random.default_rng(seed)
    model = a_model(rng, ["weight", *names], pruned)
    layout = Layout.of(model)
    part = layout.part(layout.mask((moved & model.keys()) or {"weight"}))
    delta = difference(model, a_model(rng, [*model], pruned), layout) if side else None

    def coding() -> UpdateCoding:
        """How either end, for itself, knows that the update is coded."""
        masks = WeightMasks.of(model, layout) if pruned else UNPRUNED
        return UpdateCoding(parse(codec), part, masks, VERSION, delta)

    trained = WeightMasks.of(model, layout).apply(a_model(rng, [*model], 0.0))
    selected = coding().select(trained, model)
    state = coding().codec.init(part)
    frame, after, lost = coding().encode(selected, state, rng)
    there = coding().decode(frame)
    assert [*there] == [tensor.name for tensor in part.tensors]
    for name, mask in coding().masks.by_name.items():
        assert name not in there or not there[name].reshape(-1)[~mask].any()
    if codec == "none":
        zeroed = {name: np.where(_live(coding(), name, array), array, 0) for name, array in trained.items()}
        assert same(there, {name: zeroed[name].astype(trained[name].dtype) for name in there})
    wanted = difference(trained, model, part)
    for tensor in part.tensors:
        if not tensor.floating:
            assert there[tensor.name].tobytes() == trained[tensor.name].tobytes()
    if (
        "residual" in after and part.lossy
    ):  # what the frame leaves out is in the state, all of it if the frame is not accepted
        sent, want = (np.concatenate([each[t.name].ravel() for t in part.lossy]) for each in (there, wanted))
        kept = np.concatenate([_live(coding(), t.name, wanted[t.name]).ravel() for t in part.lossy])
        np.testing.assert_allclose(sent + after["residual"], np.where(kept, want, 0), atol=1e-4)
        np.testing.assert_allclose(lost["residual"], np.where(kept, want, 0), atol=1e-4)


@pytest.mark.parametrize("codec", [codec for codec in CODECS if codec != "none"])
def test_an_update_of_another_model_is_refused(codec: str) -> None:
    rng = np.random.default_rng(0)
    model, trained = (a_model(rng, ["weight", "bias"], 0.0) for _ in range(2))
    layout = Layout.of(model)
    coding = UpdateCoding(parse(codec), layout, UNPRUNED, VERSION, None)
    frame, _, _ = coding.encode(coding.select(trained, model), coding.codec.init(layout), rng)
    with pytest.raises(FrameError):
        UpdateCoding(parse(codec), layout, UNPRUNED, b"another.", None).decode(frame)


def _live(coding: UpdateCoding, name: str, array: np.ndarray) -> np.ndarray:
    """Where a tensor's weights are not pruned."""
    mask = coding.masks.by_name.get(name)
    return np.ones(array.shape, np.bool_) if mask is None else mask.reshape(array.shape)
