"""Laws of steps: the server's model and those of all nodes follow the same frames, to the bit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.serverapp.strategy import FedAvg, FedAvgM
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpress.client.mod.node_state import ClientState
from fedpress.common.errors import FrameError, SettingError
from fedpress.compression import Layout, Update, parse
from fedpress.compression.updates import version_of
from fedpress.protocol.arrays import model_record
from fedpress.protocol.messages import TrainRequest
from fedpress.protocol.model_frames import ModelFrames, apply_frames
from fedpress.server import Compressed
from fedpress.server.downlink.model_store import ModelStore
from fedpress.server.downlink.steps import StepDownlink

STEP, KEY = "crosspolytope(noise=4.0)", "uniform(8) | ans"
RNG = np.random.default_rng(0)
MODEL: Update = {  # key frames hold matrices first
    "bias": np.ones(30, np.float32),
    "weight": RNG.normal(size=(20, 30)).astype(np.float32),
    "count": np.array(3),
    "head": RNG.normal(size=(5, 20)).astype(np.float32),
}
LAYOUT = Layout.of(MODEL)


def moved(model: Update, rng: np.random.Generator) -> Update:
    weight = model["weight"] + rng.normal(0, 0.1, (20, 30)).astype(np.float32)
    return {**model, "weight": weight, "bias": model["bias"] * np.float32(1.01), "count": model["count"] + 1}


def link(folder: Path, *, shared: bool = True, seed: int = 0) -> StepDownlink:
    folder.mkdir(parents=True, exist_ok=True)
    return StepDownlink(
        parse(STEP), parse(KEY), MODEL, seed, ModelStore(LAYOUT, folder, 1 << 30), shared_initial=shared
    )


def follow(frames: ModelFrames, held: Update) -> Update:
    return apply_frames(frames, held, LAYOUT, weight_masks=False)


@pytest.mark.parametrize("shared", [False, True])
@settings(deadline=None, max_examples=8)
@given(seen=st.lists(st.sampled_from(["away", "here", "lost"]), min_size=8, max_size=8), stop=st.integers(1, 7))
def test_a_node_has_the_servers_model_whenever_it_comes(
    seen: list[str], stop: int, shared: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder, rng = tmp_path_factory.mktemp("versions"), np.random.default_rng(1)
    downlink = link(folder, shared=shared)
    base, held = (dict(MODEL), downlink.initial) if shared else ({}, b"")
    for number, here in enumerate(seen, 1):
        downlink.advance(moved(downlink.exact, rng), number)
        if number == stop:  # another process takes over
            saved, downlink = downlink.save(), link(folder, shared=shared)
            downlink.resume(saved, number)
        if here == "away":
            continue
        frames = downlink.frames_for(held, key=here == "lost")
        assert frames.is_key == (here == "lost" or not held)
        base, held = follow(frames, base), frames.version
        assert held == downlink.version == version_of(base, LAYOUT)
        assert all(base[name].tobytes() == array.tobytes() for name, array in downlink.exact.items())
        assert downlink.model is downlink.exact


def test_a_step_is_unbiased_and_a_tensor_that_is_exact_stays_so(tmp_path: Path) -> None:
    wanted, found = moved(MODEL, np.random.default_rng(2)), []
    for seed in range(300):
        downlink = link(tmp_path / str(seed), seed=seed)
        downlink.advance(wanted, 1)
        assert downlink.exact["count"] == wanted["count"]
        found.append(downlink.exact["weight"] - MODEL["weight"])
    change = wanted["weight"] - MODEL["weight"]
    assert np.square(np.mean(found, 0) - change).sum() < 3 * 4.0 / 300 * np.square(change).sum()


def test_a_node_that_missed_more_than_a_model_is_sent_a_model(tmp_path: Path) -> None:
    downlink, rng = link(tmp_path), np.random.default_rng(3)
    for number in range(1, 200):
        downlink.advance(moved(downlink.exact, rng), number)
    assert not downlink.starts_from(downlink.initial)
    frames = downlink.frames_for(b"")
    assert frames.is_key
    assert frames.nbytes < 1.2 * LAYOUT.nbytes
    assert follow(frames, {})["weight"].tobytes() == downlink.exact["weight"].tobytes()


def test_steps_that_are_changed_or_out_of_order_are_refused(tmp_path: Path) -> None:
    downlink, rng = link(tmp_path, shared=False), np.random.default_rng(4)
    for number in (1, 2, 3):
        downlink.advance(moved(downlink.exact, rng), number)
    frames = downlink.frames_for(b"")
    reverse = frames.frames[::-1]
    request = TrainRequest(
        arrays="arrays",
        frame_lengths=tuple(map(len, reverse)),
        frame_specs=frames.specs[::-1],
        frame_tensors=frames.tensors[::-1],
        weight_mask_length=0,
        version=frames.version,
        layout=LAYOUT.text,
        weight_masks=False,
        keep=True,
        up="none",
        exclude=b"",
        accepted=b"",
        turn=0,
        server=bytes(8),
        nonce=bytes(16),
        round=1,
        seed=0,
    )
    with pytest.raises(FrameError):
        ModelFrames.split(b"".join(reverse), request)
    swapped = ModelFrames(
        (*frames.frames[:2], frames.frames[3], frames.frames[2], *frames.frames[4:]),
        frames.specs,
        frames.tensors,
        version=frames.version,
    )
    with pytest.raises(FrameError):
        follow(swapped, {})


def test_nodes_hold_what_is_evaluated_and_a_resumed_run_has_the_same_bits(make_grid, model, tmp_path: Path) -> None:
    def run(rounds: int, *, resume: bool = False, folder: str, grid: Any) -> Update:
        inner = FedAvg(fraction_train=0.5, fraction_evaluate=0.0)
        strategy = Compressed(inner, broadcast="steps", checkpoint=tmp_path / folder, resume=resume)
        strategy.observe(lambda done: evaluated.append(dict(done.model)))
        strategy.start(grid, model_record(model), num_rounds=rounds)
        return evaluated[-1]

    evaluated: list[Update] = []

    grid = make_grid(6)
    whole = run(4, folder="whole", grid=grid)
    kept = {ClientState.load(context.state).version for context in grid.contexts.values()} - {b""}
    assert kept <= {version_of(one, Layout.of(model)) for one in evaluated}
    half = make_grid(6)
    run(2, folder="half", grid=half)
    resumed = run(4, resume=True, folder="half", grid=half)
    assert all(resumed[name].tobytes() == array.tobytes() for name, array in whole.items())


@pytest.mark.parametrize(("down", "warned"), [("auto", False), ("qsgd(4) | ans", False), ("topk(0.1) | ans", True)])
def test_biased_steps_are_warned_of(
    make_grid, model, down: str, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    inner = FedAvg(fraction_train=1.0, fraction_evaluate=0.0)
    strategy = Compressed(inner, up="none", down=down, broadcast="steps")
    strategy.start(make_grid(2), model_record(model), num_rounds=1)
    assert any(record.getMessage().startswith("down, ") for record in caplog.records) == warned


@pytest.mark.parametrize("given", [{"stateless": True}, {"down": "none"}, {"strategy": FedAvgM()}])
def test_what_steps_cannot_go_with_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match="broadcast"):
        Compressed(**{"strategy": FedAvg(), "broadcast": "steps", **given})


def test_unknown_versions_and_key_frames_are_coded_once(tmp_path: Path) -> None:
    downlink = link(tmp_path)
    downlink.advance(moved(downlink.exact, np.random.default_rng(5)), 1)
    assert downlink.frames_for(b"unknown1") is downlink.frames_for(b"unknown2")
    assert downlink.frames_for(b"unknown1", key=True) is downlink.frames_for(downlink.initial, key=True)
