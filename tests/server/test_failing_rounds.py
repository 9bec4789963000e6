"""Laws of rounds that fail: a round is abandoned, never the run, and nodes that stay silent are asked less."""

import time
from collections import Counter

import pytest
from flwr.app import Error, Message, MessageType, RecordDict
from flwr.serverapp.strategy import FedAvg

from fedpress.flower.runtime import GONE
from fedpress.protocol.arrays import model_record
from fedpress.protocol.messages import RECORD_NAME
from fedpress.server import Compressed
from fedpress.server.aggregation.client_update import FederationLimits
from fedpress.server.strategy.selection import select

NODES = 10
UP, DOWN = "ef | topk(0.1) | ans", "lowrank(nmse=0.3) | ans"


def sampling(nodes: int) -> FedAvg:
    return FedAvg(fraction_train=1e-9, fraction_evaluate=0.0, min_train_nodes=nodes, min_available_nodes=nodes)


def trained_by(grid) -> list[tuple[int, int]]:
    """Return round and partition of each training request, in the order in which they were sent."""
    records = [(m.content[RECORD_NAME], grid.partition[m.metadata.dst_node_id]) for m in grid.sent]
    return [(record["round"], partition) for record, partition in records if record["kind"] == "train"]


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the list of the pauses that are asked for; none is made."""
    made: list[float] = []
    monkeypatch.setattr(time, "sleep", made.append)
    return made


def test_a_fleet_that_sleeps_is_waited_for(make_grid, model, pauses) -> None:
    grid, seen = make_grid(NODES), []
    grid.most_nodes = lambda: None  # as of real devices: others may join
    grid.before = lambda m: not (m.content[RECORD_NAME]["kind"] == "train" and 4 <= len(trained_by(grid)) < 4 + 8 * 3)
    Compressed(sampling(3), up=UP, down=DOWN).observe(seen.append).start(grid, model_record(model), num_rounds=3)
    assert [(done.number, len(done.counted)) for done in seen[1:]] == [(1, 3), (2, 3), (3, 3)]
    assert len(pauses) >= 7
    assert pauses == sorted(pauses)


def test_other_nodes_are_asked_when_a_round_is_repeated(make_grid, model) -> None:
    grid = make_grid(NODES)
    fail = grid.app

    def app(message: Message, context) -> Message:
        if grid.sent[-1].content[RECORD_NAME]["kind"] == "train" and len(trained_by(grid)) <= 4:
            return Message(Error(0, "the disk is full"), reply_to=message)
        return fail(message, context)

    grid.app = app
    Compressed(sampling(4), up=UP, down=DOWN).start(grid, model_record(model), num_rounds=1)
    asked = [partition for _, partition in trained_by(grid)]
    assert len(asked) == 8
    assert not set(asked[:4]) & set(asked[4:])


@pytest.mark.parametrize("code", [None, *GONE])
def test_a_node_that_never_answers_is_asked_less(code: int | None, make_grid, model) -> None:
    counts: list[Counter[int]] = []
    for _ in range(2):
        grid = make_grid(NODES)
        quiet = next(node for node, partition in grid.partition.items() if partition == 4)
        train = grid.app

        def app(message: Message, context, grid=grid, quiet=quiet, train=train) -> Message:
            if context.node_id == quiet and grid.sent[-1].content[RECORD_NAME]["kind"] == "train":
                return Message(Error(code, "gone"), reply_to=message)
            return train(message, context)

        if code is None:
            grid.before = lambda m, quiet=quiet: (
                not (m.metadata.dst_node_id == quiet and m.content[RECORD_NAME]["kind"] == "train")
            )
        else:
            grid.app = app
        Compressed(sampling(4), seed=1).start(grid, model_record(model), num_rounds=30)
        counts.append(Counter(partition for _, partition in trained_by(grid)))
    assert counts[0] == counts[1], "the same nodes for the same seed"
    assert 0 < counts[0][4] < 30 * 4 / NODES / 2


@pytest.mark.parametrize("lost", [0, 2, 1000])
def test_a_node_that_was_cut_off_is_asked_as_before_unless_it_always_is(lost: int, make_grid, model) -> None:
    """A round that closes early does not show that a node is silent: it may only be slower than others."""
    grid = make_grid(NODES)
    slow = next(node for node, partition in grid.partition.items() if partition == 4)
    grid.cut_off = frozenset({slow})
    requests = [0]

    def before(message: Message) -> bool:
        trains = message.metadata.dst_node_id == slow and message.content[RECORD_NAME]["kind"] == "train"
        requests[0] += trains
        return not trains or requests[0] > lost

    grid.before = before
    Compressed(sampling(4), seed=1).start(grid, model_record(model), num_rounds=40)
    others = Counter(partition for _, partition in trained_by(grid))
    if lost <= 2:
        plain = make_grid(NODES)
        Compressed(sampling(4), seed=1).start(plain, model_record(model), num_rounds=40)
        assert trained_by(grid) == trained_by(plain)
    else:
        assert 0 < others[4] < 40 * 4 / NODES / 1.5


def test_all_are_asked_where_the_strategy_asks_all(make_grid, model) -> None:
    grid, seen = make_grid(NODES), []
    grid.after = lambda r: "metrics" not in r.content or grid.partition[r.metadata.src_node_id] != 4
    everyone = FedAvg(fraction_train=1.0, fraction_evaluate=0.0)
    Compressed(everyone, up=UP, down=DOWN).observe(seen.append).start(grid, model_record(model), num_rounds=3)
    assert [(len(done.counted), done.failures) for done in seen[1:]] == [(NODES - 1, 1)] * 3


@pytest.mark.parametrize(("sampled", "asked"), [(4, 6), (9, 10), (10, 10)])
def test_more_nodes_are_asked_than_have_to_reply_if_there_are_more(sampled, asked, make_grid, model) -> None:
    grid = make_grid(NODES)
    strategy = Compressed(sampling(sampled), up=UP, down=DOWN, limits=FederationLimits(over_selection=1.3))
    strategy.start(grid, model_record(model), num_rounds=2)
    for number in (1, 2):
        partitions = [partition for asked_in, partition in trained_by(grid) if asked_in == number]
        assert len(partitions) == len(set(partitions)) == asked


def test_messages_that_differ_from_node_to_node_stay_as_the_strategy_made_them() -> None:
    messages = [Message(RecordDict(), node, MessageType.TRAIN) for node in (1, 2)]
    assert select(messages, range(1, 9), {1}, 2.0) == messages
