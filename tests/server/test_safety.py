"""Laws of what is let into the sum, and of nodes that are not what they were."""

import numpy as np
import pytest
from flwr.app import Message, RecordDict
from flwr.serverapp.strategy import FedAvg, FedMedian

from fedpress.client.mod.node_state import ClientState
from fedpress.compression import Layout
from fedpress.protocol.arrays import model_record
from fedpress.protocol.messages import RECORD_NAME
from fedpress.server import Compressed
from fedpress.server.aggregation.client_update import FederationLimits

from .conftest import DirectGrid, copy

NODES = 5
UP, DOWN = "ef | topk(0.1) | ans", "lowrank(nmse=0.3) | ans"
EVIL = 2  # the partition that sends what it should not


def everyone(kind: type[FedAvg] = FedAvg) -> FedAvg:
    return kind(fraction_train=1.0, fraction_evaluate=0.0)


def is_evil(grid: DirectGrid, reply: Message) -> bool:
    trained = not reply.has_error() and bool(reply.content.array_records)
    return trained and grid.partition[reply.metadata.src_node_id] == EVIL


@pytest.mark.parametrize("kind", [FedAvg, FedMedian])
@pytest.mark.parametrize("evil", ["negative", "zero", "absurd", "text", "mask", "no answer"])
def test_what_cannot_be_is_refused_and_named(
    evil: str, kind: type[FedAvg], make_grid, model, caplog: pytest.LogCaptureFixture
) -> None:
    grid = make_grid(NODES)

    def spoil(reply: Message) -> bool:
        if is_evil(grid, reply):
            counts = {"negative": -1, "zero": 0, "absurd": 1e30, "text": float("inf")}
            if evil in counts:
                reply.content["metrics"]["num-examples"] = counts[evil]
            elif evil == "mask":
                reply.content[RECORD_NAME]["tensors"] = b"\xff\xff"
            elif evil == "no answer":
                reply.content[RECORD_NAME]["answer"] = b""
        return True

    grid.after = spoil
    seen = []
    strategy = Compressed(everyone(kind), up=UP, down=DOWN).observe(seen.append)
    strategy.start(grid, model_record(model), num_rounds=2)
    assert [(len(done.counted), done.failures) for done in seen[1:]] == [(NODES - 1, 1)] * 2
    assert f"node {EVIL}: its reply is refused" in caplog.text


def test_an_old_reply_is_not_an_answer(make_grid, model, caplog: pytest.LogCaptureFixture) -> None:
    """A replay of an earlier round's reply, and a copy of this round's, are refused; the round continues without."""
    grid = make_grid(NODES)
    kept: list[RecordDict] = []

    def replay(reply: Message) -> bool:
        if is_evil(grid, reply):
            kept.append(copy(reply.content))
            if len(kept) > 1:
                reply.content.clear()
                reply.content.update(copy(kept[0]))
        return True

    grid.after = replay
    send = grid.send_and_receive

    def twice(messages, *, timeout=None):
        replies = send(messages, timeout=timeout)
        return replies + [r for r in replies if not r.has_error() and grid.partition[r.metadata.src_node_id] == 1]

    grid.send_and_receive = twice
    seen = []
    Compressed(everyone(), up=UP, down=DOWN).observe(seen.append).start(grid, model_record(model), num_rounds=2)
    assert [len(done.counted) for done in seen[1:]] == [NODES, NODES - 1]
    assert f"node {EVIL}: its reply is refused" in caplog.text


def test_the_sum_is_never_applied_half(make_grid, model) -> None:
    """A round in which too few count is repeated whole; what the refused ones had to say is not lost."""
    grid = make_grid(NODES)
    bad = {"left": 2 * NODES - 4}

    def spoil(reply: Message) -> bool:
        if not reply.has_error() and reply.content.array_records and bad["left"] > 0:
            bad["left"] -= 1
            reply.content["metrics"]["num-examples"] = -5
        return True

    grid.after = spoil
    seen = []
    strategy = Compressed(everyone(), up=UP, down=DOWN, limits=FederationLimits(min_replies=4)).observe(seen.append)
    strategy.start(grid, model_record(model), num_rounds=1)
    assert (len(seen[1].counted), seen[1].failures) == (4, 2 * NODES - 4)


def test_a_node_that_comes_back_with_an_old_state_counts_nothing_twice(make_grid, model, wanted) -> None:
    grid, layout = make_grid(2), Layout.of(model)
    counted = np.zeros(layout.size)
    kept: list[RecordDict] = []
    gone: list[np.ndarray] = []

    def after(reply: Message) -> bool:
        nonlocal counted
        if not reply.has_error() and reply.content.array_records and grid.partition[reply.metadata.src_node_id] == 0:
            (record,) = reply.content.array_records.values()
            counted = counted + layout.flatten(grid.decode(UP, record["frame"].data, layout))[0]
        return True

    def on_round(done) -> None:
        state = grid.context(0).state
        if done.number == 2:
            kept.append(RecordDict(dict(state)))
        if done.number == 4:
            gone.append(np.asarray(ClientState.load(state).after["residual"], np.float64))
            # As a device does that was restored from a backup.
            for key in [key for key in state if key.startswith(RECORD_NAME)]:
                del state[key]
            state.update({key: record for key, record in kept[0].items() if key.startswith(RECORD_NAME)})

    grid.after = after
    Compressed(everyone(), up=UP, down=DOWN).observe(on_round).start(grid, model_record(model), num_rounds=6)
    memory = ClientState.load(grid.context(0).state)
    total = np.sum(wanted(grid, 0, layout), axis=0, dtype=np.float64)
    # What the device had held back by round 4 went with it, and what its backup held back is in the sum already.
    np.testing.assert_allclose(counted + memory.after["residual"], total - gone[0], atol=2e-5)
    assert memory.turn == 6


def test_another_server_starts_its_nodes_anew(make_grid, model) -> None:
    grid = make_grid(NODES)
    for _ in range(2):
        seen = []
        strategy = Compressed(everyone(), up=UP, down=DOWN).observe(seen.append)
        strategy.start(grid, model_record(model), num_rounds=2)
        assert [(len(done.counted), done.failures) for done in seen[1:]] == [(NODES, 0)] * 2
        assert all(ClientState.load(context.state).turn == 2 for context in grid.contexts.values())
