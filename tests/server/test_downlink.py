"""Laws of the downlink: every frame leads where it says, from what its node holds."""

from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message, RecordDict
from flwr.serverapp.strategy import FedAvg
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpress.client import compress
from fedpress.client.mod.node_state import ClientState
from fedpress.compression import Layout, SettingError, parse
from fedpress.compression.updates import version_of
from fedpress.protocol.arrays import model_record
from fedpress.protocol.folding import FRAMES
from fedpress.protocol.messages import RECORD_NAME
from fedpress.protocol.model_frames import ModelFrames, apply_frames
from fedpress.server import Compressed
from fedpress.server.aggregation.client_update import FederationLimits
from fedpress.server.downlink.deltas import DeltaDownlink
from fedpress.server.downlink.model_store import ModelStore

from .conftest import make_app

NODES = 6
UP, DOWN, KEY_CODEC = "ef | topk(0.1) | ans", "lowrank(nmse=0.3) | ans", "uniform(8) | ans"


def everyone() -> FedAvg:
    return FedAvg(fraction_train=1.0, fraction_evaluate=0.0)


def some() -> FedAvg:
    return FedAvg(fraction_train=0.34, fraction_evaluate=0.0, min_train_nodes=2)


def walk(model: dict[str, np.ndarray], rounds: int) -> list[dict[str, np.ndarray]]:
    """A model that drifts, with one tensor that never does."""
    rng = np.random.default_rng(1)
    models = [model]
    for _ in range(rounds):
        step = {k: rng.normal(0, 0.1, v.shape).astype(v.dtype) for k, v in model.items()}
        step["bias"] = np.zeros_like(model["bias"])
        models.append({k: np.asarray(v + step[k]).astype(v.dtype) for k, v in models[-1].items()})
    return models


def follow(frames: ModelFrames, held: dict[str, np.ndarray], layout: Layout) -> dict[str, np.ndarray]:
    """Apply frames as a node does."""
    return apply_frames(frames, held, layout, weight_masks=False)


def error(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    return float(sum(np.square(one[k].astype(float) - other[k]).sum() for k in one))


@pytest.mark.parametrize("key", ["none", KEY_CODEC])
@pytest.mark.parametrize("shared", [False, True])
@settings(deadline=None, max_examples=8)
@given(seen=st.lists(st.booleans(), min_size=8, max_size=8))
def test_a_node_gets_where_the_server_says_whenever_it_comes(
    seen: list[bool], shared: bool, key: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rng = np.random.default_rng(0)
    model = {"weight": rng.normal(size=(20, 30)).astype(np.float32), "bias": np.ones(30, np.float32)}
    model["steps"] = np.array(3)
    models, layout = walk(model, 8), Layout.of(model)
    versions = ModelStore(layout, tmp_path_factory.mktemp("versions"), 1 << 30)
    downlink = DeltaDownlink(parse(DOWN), parse(key), model, 0, versions, shared_initial=shared)
    held, base = b"", model if shared else {}
    for number, (wanted, here) in enumerate(zip(models[1:], seen, strict=True), 1):
        downlink.advance(wanted, number)
        assert version_of(downlink.model, layout) == downlink.version
        if here:
            frames = downlink.frames_for(held)
            assert frames is downlink.frames_for(held)  # equal frames are one object
            away, base = error(base, wanted) if base else 0.0, follow(frames, base, layout)
            held = frames.version
            assert version_of(base, layout) == held
            assert held in versions
            np.testing.assert_array_equal(base["steps"], wanted["steps"])
            if frames.base:  # the codec's target holds for every delta, however long the node was away
                assert error(base, wanted) <= 0.31 * away
        versions.retain({held} - {b""}, {downlink.version, downlink.initial} - {b""})


def test_a_delta_over_many_rounds_is_fewer_bytes_than_the_deltas(model, tmp_path: Path) -> None:
    models, layout = walk({k: v for k, v in model.items() if v.dtype == np.float32}, 10), None
    layout = Layout.of(models[0])
    versions = ModelStore(layout, tmp_path, 1 << 30)
    downlink = DeltaDownlink(parse(DOWN), parse("none"), models[0], 0, versions, shared_initial=True)
    one_by_one, held = 0, downlink.version
    for number, wanted in enumerate(models[1:], 1):
        downlink.advance(wanted, number)
        frames = downlink.frames_for(held)
        one_by_one += frames.nbytes
        held = frames.version
    assert downlink.frames_for(b"").nbytes < 0.6 * one_by_one


def test_vectors_in_key_frames_are_exact(model, tmp_path: Path) -> None:
    layout = Layout.of(model)
    downlink = DeltaDownlink(parse(DOWN), parse(KEY_CODEC), model, 0, ModelStore(layout, tmp_path, 1 << 30))
    frames = downlink.frames_for(b"")
    got = follow(frames, {}, layout)
    assert frames.is_key
    assert frames.nbytes < layout.nbytes / 2
    np.testing.assert_array_equal(got["bias"], model["bias"])
    assert 0 < error(got, model) < 1e-3 * error({k: v * 0 for k, v in model.items()}, model)


def test_nodes_that_take_part_in_every_round_share_one_version(make_grid, model) -> None:
    grid = make_grid(NODES)
    seen = []
    strategy = Compressed(everyone(), up=UP, down=DOWN, key=KEY_CODEC).observe(seen.append)
    strategy.start(grid, model_record(model), num_rounds=4)
    held = {ClientState.load(context.state).version for context in grid.contexts.values()}
    assert held == {version_of(seen[3].model, Layout.of(model))}  # what was evaluated before the last training
    sent = [m for m in grid.sent if m.content[RECORD_NAME]["kind"] == "train"][-NODES:]
    assert len({next(iter(m.content["arrays"].values())).data for m in sent}) == 1


def test_a_long_frame_is_one_object_for_all_nodes(make_grid, monkeypatch: pytest.MonkeyPatch) -> None:
    model = {"w": np.random.default_rng(0).normal(size=(50, 50)).astype(np.float32)}
    grid = make_grid(NODES)
    raw: list[Message] = []
    send = grid.send_and_receive

    def spy(messages, *, timeout=None):
        messages = list(messages)
        raw.extend(messages)
        return send(messages, timeout=timeout)

    monkeypatch.setattr(grid, "send_and_receive", spy)
    Compressed(everyone(), up=UP, down="none").start(grid, model_record(model), num_rounds=1)
    work = [message for message in raw if FRAMES in message.content]
    assert len(work) == NODES
    assert len({id(message.content[FRAMES]) for message in work}) == 1
    assert all(len(message.content) == 2 for message in work)


def test_nodes_that_have_the_initial_model_get_no_key_frame(make_grid, model) -> None:
    sizes = {}
    for shared in (False, True):
        app = make_app(compress(initial=lambda _: model))
        strategy = Compressed(some(), up=UP, down=DOWN, shared_initial=shared)
        strategy.start(make_grid(NODES, app=app), model_record(model), num_rounds=8)
        sizes[shared] = max(entry.frame for entry in strategy.ledger if entry.direction == "down")
    assert sizes[True] < Layout.of(model).nbytes / 4 < sizes[False]


@pytest.mark.parametrize("other", ["values", "names"])
def test_another_initial_model_is_noticed_and_replaced(other: str, make_grid, model) -> None:
    mine = {k: v + 1 for k, v in model.items()} if other == "values" else {"x": np.ones(3, np.float32)}
    grid = make_grid(NODES, app=make_app(compress(initial=lambda _: mine)))
    seen = []
    strategy = Compressed(everyone(), up=UP, down=DOWN, shared_initial=True).observe(seen.append)
    strategy.start(grid, model_record(model), num_rounds=2)
    assert [(len(done.counted), done.failures) for done in seen[1:]] == [(NODES, 0)] * 2


def test_a_node_with_an_old_base_gets_a_delta_from_there(make_grid, model) -> None:
    """Its copy of a few rounds ago comes back: the server still has that version, since it keeps what nodes hold."""
    grid = make_grid(NODES)
    kept: list[RecordDict] = []

    def on_round(done) -> None:
        if done.number == 1:
            kept.append(RecordDict(dict(grid.context(1).state)))
            grid.before = lambda m: m.metadata.dst_node_id != grid.context(0).node_id  # node 0 stays at version 1
        if done.number == 3:
            grid.context(1).state = kept[0]

    strategy = Compressed(everyone(), up="topk(0.1) | ans", down=DOWN).observe(on_round)
    strategy.start(grid, model_record(model), num_rounds=4)
    frames = [e.frame for e in strategy.ledger if e.round == 4 and e.node == "1" and e.direction == "down"]
    assert len(frames) == 2  # what did not fit, then what did
    assert max(frames) < Layout.of(model).nbytes / 2


@pytest.mark.parametrize("shared", [False, True])
def test_stateless_nodes_keep_nothing(shared: bool, make_grid, model) -> None:
    grid = make_grid(NODES, app=make_app(compress(initial=lambda _: model), remember=False))
    seen = []
    strategy = Compressed(
        some(),
        up="qsgd(4) | ans",
        down=DOWN,
        key=KEY_CODEC,
        stateless=True,
        shared_initial=shared,
    ).observe(seen.append)
    strategy.start(grid, model_record(model), num_rounds=5)
    assert all(not context.state for context in grid.contexts.values())
    assert all(done.failures == 0 for done in seen)
    down = strategy.ledger.totals(direction="down")
    assert down.ratio > (4 if shared else 2)
    with pytest.raises(SettingError, match="codecs without state, got 'ef"):
        Compressed(some(), up=UP, stateless=True)


def test_models_that_do_not_fit_are_forgotten_and_replaced_by_key_frames(make_grid, model) -> None:
    layout = Layout.of(model)
    seen = []
    limits = FederationLimits(stored_bytes=2 * layout.nbytes)
    strategy = Compressed(some(), up=UP, down=DOWN, key="none", limits=limits).observe(seen.append)
    strategy.start(make_grid(NODES), model_record(model), num_rounds=8)
    assert all(done.failures == 0 for done in seen)
    keys = [e for e in strategy.ledger if e.direction == "down" and e.frame >= layout.nbytes]
    assert len(keys) > NODES


def test_frozen_and_excluded_tensors_are_not_sent(make_grid, model) -> None:
    frozen = make_app(frozen="weight")
    parts: list[bytes] = []
    grid = make_grid(NODES, app=frozen)

    def after(reply: Message) -> bool:
        if not reply.has_error() and reply.content.array_records:
            parts.append(reply.content[RECORD_NAME]["tensors"])
        return True

    grid.after = after
    strategy = Compressed(everyone(), up="none", down=DOWN, key="none", exclude=("sca*",))
    result = strategy.start(grid, model_record(model), num_rounds=2)
    layout = Layout.of(model)
    assert {tuple(t.name for t in layout.part(mask).tensors) for mask in parts} == {("bias", "steps")}
    final = {name: array.numpy() for name, array in result.arrays.items()}
    np.testing.assert_array_equal(final["weight"], model["weight"])
    np.testing.assert_array_equal(final["scale"], model["scale"])
    assert (final["bias"] != model["bias"]).any()
    with pytest.raises(SettingError, match="leave some tensors to be sent"):
        Compressed(everyone(), exclude=("*",)).start(make_grid(NODES), model_record(model), num_rounds=1)


def test_a_residual_goes_with_its_tensor(make_grid, model, wanted) -> None:
    """A layer that is trained in some rounds only: sent + residual == wanted all the same."""
    grid = make_grid(2, app=make_app(frozen="weight", thawed_in=(2, 4)))
    counted: dict[int, dict[str, float]] = {0: {}, 1: {}}
    layout = Layout.of(model)

    def after(reply: Message) -> bool:
        if reply.has_error() or not reply.content.array_records:
            return True
        (record,) = reply.content.array_records.values()
        part = layout.part(reply.content[RECORD_NAME]["tensors"])
        update = grid.decode(UP, record["frame"].data, part)
        sums = counted[grid.partition[reply.metadata.src_node_id]]
        for tensor in part.lossy:
            sums[tensor.name] = sums.get(tensor.name, 0) + update[tensor.name].astype(np.float64)
        return True

    grid.after = after
    Compressed(everyone(), up=UP, down=DOWN).start(grid, model_record(model), num_rounds=5)
    for partition in (0, 1):
        memory = ClientState.load(grid.context(partition).state)
        part = layout.part(memory.tensors)
        kept = part.unflatten(memory.after["residual"], np.zeros(part.exact_nbytes, np.uint8))
        got = {t.name: counted[partition][t.name] + kept[t.name] for t in part.lossy}
        total = np.sum(wanted(grid, partition, layout), axis=0, dtype=np.float64)
        np.testing.assert_allclose(np.concatenate([got[t.name].ravel() for t in layout.lossy]), total, atol=2e-5)


def test_without_deltas_whole_models_are_exact(make_grid, floats) -> None:
    strategy = Compressed(everyone(), up=UP, down="none", key=KEY_CODEC)
    strategy.start(make_grid(NODES), model_record(floats), num_rounds=2)
    assert 0.9 < strategy.ledger.totals(direction="down").ratio <= 1.0
