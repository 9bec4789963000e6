"""Whatever one node replies, the round continues without it, and the server takes no more memory than the message."""

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.server.superlink.linkstate.utils import create_message_error_unavailable_res_message
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg, FedMedian

from fedpress.client import compress
from fedpress.common.errors import FedpressError, SettingError
from fedpress.compression import Layout, Streams
from fedpress.compression.registry import STAGES, CodecEntry
from fedpress.compression.stages.identity import Identity
from fedpress.protocol.arrays import model_record
from fedpress.protocol.messages import RECORD_NAME
from fedpress.server import Compressed
from fedpress.server.aggregation.client_update import FederationLimits
from fedpress.server.extension import Extension
from fedpress.server.rate_control.policies import Policy

from .conftest import DirectGrid, make_app

NODES = 5
UP, DOWN = "ef | topk(0.1) | ans", "lowrank(nmse=0.3) | ans"
ODD = 2  # the partition that says what no other does
HUGE = 2**40  # what would be a terabyte, if a number were taken for bytes


def everyone(kind: type[FedAvg] = FedAvg, evaluate: float = 0.0) -> FedAvg:
    return kind(fraction_train=1.0, fraction_evaluate=evaluate)


def spoil(grid: DirectGrid, change: Callable[[RecordDict], object], *, trained: bool = True) -> None:
    """Let `change` have a go at each reply of the odd node to training, or to evaluation."""

    def after(reply: Message) -> bool:
        work = not reply.has_error() and "metrics" in reply.content
        if work and bool(reply.content.array_records) == trained and grid.partition[reply.metadata.src_node_id] == ODD:
            change(reply.content)
        return True

    grid.after = after


def rename(content: RecordDict, old: str, new: str) -> None:
    content[new] = content.pop(old)


ODDITIES: dict[str, Callable[[RecordDict], object]] = {
    "a metric more": lambda content: content["metrics"].update({"extra": 3.0}),
    "a list for a metric": lambda content: content["metrics"].update({"train_loss": [1.0, 2.0]}),
    "another name for the metrics": lambda content: rename(content, "metrics", "zzz"),
    "another name for the arrays": lambda content: rename(content, "arrays", "weird"),
    "an endless count of turns": lambda content: content[RECORD_NAME].update({"turn": float("inf")}),
    "a number for a version": lambda content: content[RECORD_NAME].update({"version": HUGE}),
    "a number for a mask": lambda content: content[RECORD_NAME].update({"tensors": HUGE}),
    "a number for an answer": lambda content: content[RECORD_NAME].update({"answer": HUGE}),
    "text for seconds": lambda content: content[RECORD_NAME].update({"training_seconds": "soon"}),
    "no version": lambda content: content[RECORD_NAME].pop("version"),
}


def test_statistics_beyond_float32_are_refused(make_grid) -> None:
    def grow(message: Message, context: Context, app: Callable[[Message, Context], Message]) -> Message:
        reply = app(message, context)
        if context.node_config["partition-id"] == ODD:
            ((key, record),) = reply.content.array_records.items()
            reply.content[key] = ArrayRecord({**record, "1.running_var": Array(np.full(3, 1e300))})
        return reply

    model, seen = {"w": np.ones((3, 2)), "1.running_var": np.ones(3)}, []
    grid = make_grid(NODES, app=make_app(mods=[compress(), grow]))
    result = Compressed(everyone()).observe(seen.append).start(grid, model_record(model), num_rounds=2)
    assert [set(done.counted) for done in seen[1:]] == [{"0", "1", "3", "4"}] * 2
    assert all(np.isfinite(array.numpy()).all() for array in result.arrays.values())


@pytest.mark.parametrize("kind", [FedAvg, FedMedian])
@pytest.mark.parametrize("oddity", ODDITIES)
def test_an_odd_reply_is_left_out_and_the_round_goes_on(oddity: str, kind: type[FedAvg], make_grid, model) -> None:
    grid = make_grid(NODES)
    spoil(grid, ODDITIES[oddity])
    seen = []
    strategy = Compressed(everyone(kind), up=UP, down=DOWN).observe(seen.append)
    strategy.start(grid, model_record(model), num_rounds=2)
    assert [(len(done.counted), done.failures) for done in seen[1:]] == [(NODES - 1, 1)] * 2


@dataclasses.dataclass(frozen=True)
class Faulty(Identity):
    """A stage of another package, with a fault that a node can reach by what it sends."""

    def decode(self, streams: Streams, layout: Layout) -> Streams:
        return streams if streams["values"].max(initial=0) < 5 else {"values": streams["missing"]}


def test_a_fault_in_a_stage_of_another_package_refuses_the_reply_and_ends_no_run(make_grid, monkeypatch) -> None:
    monkeypatch.setitem(STAGES, "faulty", CodecEntry(Faulty))

    def grow(message: Message, context: Context, app: Callable[[Message, Context], Message]) -> Message:
        reply = app(message, context)
        if context.node_config["partition-id"] == ODD:
            ((key, record),) = reply.content.array_records.items()
            reply.content[key] = ArrayRecord({"w": Array(record["w"].numpy() + np.float32(9))})
        return reply

    grid, seen = make_grid(NODES, app=make_app(mods=[compress(), grow])), []
    strategy = Compressed(everyone(), up="faulty").observe(seen.append)
    strategy.start(grid, model_record({"w": np.ones((3, 2), np.float32)}), num_rounds=2)
    assert [set(done.counted) for done in seen[1:]] == [{"0", "1", "3", "4"}] * 2


def test_a_node_whose_description_is_odd_is_left_out(make_grid, model, caplog) -> None:
    grid = make_grid(NODES)

    def after(reply: Message) -> bool:
        odd = grid.partition[reply.metadata.src_node_id] == ODD
        if odd and not reply.has_error() and "name" in reply.content[RECORD_NAME]:
            reply.content[RECORD_NAME]["version"] = HUGE
        return True

    grid.after = after
    seen = []
    Compressed(everyone(), up=UP, down=DOWN).observe(seen.append).start(grid, model_record(model), num_rounds=1)
    assert set(seen[1].counted) == {"0", "1", "3", "4"}
    assert "version must be bytes" in caplog.text


@pytest.mark.parametrize("change", [ODDITIES["a metric more"], lambda c: c["metrics"].update({"num-examples": 0})])
def test_an_odd_evaluation_is_left_out_of_the_mean(change: Callable[[RecordDict], object], make_grid, floats) -> None:
    grid = make_grid(NODES)
    spoil(grid, change, trained=False)
    result = Compressed(everyone(evaluate=1.0), up=UP, down=DOWN).start(grid, model_record(floats), num_rounds=2)
    assert sorted(result.evaluate_metrics_clientapp) == [1, 2]
    assert list(result.evaluate_metrics_clientapp[2]) == ["total"]


def test_where_no_evaluation_counts_there_is_none(make_grid, floats) -> None:
    grid = make_grid(NODES)

    def after(reply: Message) -> bool:
        if not reply.has_error() and "metrics" in reply.content and not reply.content.array_records:
            reply.content["metrics"]["num-examples"] = 0
        return True

    grid.after = after
    result = Compressed(everyone(evaluate=1.0), up=UP, down=DOWN).start(grid, model_record(floats), num_rounds=1)
    assert result.evaluate_metrics_clientapp == {}


def test_an_extension_reads_only_replies_to_the_request_that_a_node_was_sent(make_grid, floats) -> None:
    class Watching(Extension):
        name = "watching"
        settings = None
        seen: ClassVar[list[str]] = []

        def on_reply(self, node: str, record: ConfigRecord | None) -> None:
            self.seen.append(node)

    grid = make_grid(NODES)
    spoil(grid, lambda content: content[RECORD_NAME].update({"answer": bytes(16)}))
    Compressed(everyone(), extensions=[Watching()]).start(grid, model_record(floats), num_rounds=1)
    assert sorted(Watching.seen) == ["0", "1", "3", "4"]


def test_a_strategy_of_ones_own_gets_replies_that_differ(make_grid, floats) -> None:
    class Own(FedAvg):
        def aggregate_train(self, server_round, replies):
            self.seen = [sorted(reply.content["metrics"]) for reply in replies]
            return None, None

    grid, own = make_grid(NODES), everyone(Own)
    spoil(grid, ODDITIES["a metric more"])
    Compressed(own, up=UP, down=DOWN).start(grid, model_record(floats), num_rounds=1)
    assert sorted(own.seen, key=len)[-2:] == [["num-examples", "train_loss"], ["extra", "num-examples", "train_loss"]]


def test_a_private_strategy_weighs_by_its_own_metric_and_survives_an_update_of_nothing(make_grid, floats) -> None:
    app = ClientApp(mods=[compress()])

    @app.train()
    def train(message: Message, context) -> Message:
        ((key, record),) = message.content.array_records.items()
        step = np.float32(context.node_config["partition-id"] != ODD)
        trained = ArrayRecord({name: Array(array.numpy() + step) for name, array in record.items()})
        return Message(RecordDict({key: trained, "m": MetricRecord({"n": 3})}), reply_to=message)

    inner = FedAvg(fraction_train=1.0, fraction_evaluate=0.0, weighted_by_key="n")
    private = DifferentialPrivacyServerSideFixedClipping(inner, 0.0, 1.0, NODES)
    seen = []
    strategy = Compressed(private, up="none").observe(seen.append)
    strategy.start(make_grid(NODES, app=app), model_record(floats), num_rounds=1)
    assert (len(seen[1].counted), seen[1].failures) == (NODES - 1, 1)


def test_a_base_that_went_bad_is_noticed_and_replaced_in_the_same_round(make_grid, model) -> None:
    """Its name is right and its bytes are not, as on a worn out card: no node trains on it."""
    grid = make_grid(NODES)
    seen = []

    def on_round(done) -> None:
        seen.append((len(done.counted), done.failures))
        state = grid.context(1).state
        if done.number == 2:
            bad = {name: array.numpy().copy() for name, array in state[f"{RECORD_NAME}.base"].items()}
            bad["weight"] += np.float32(1)
            state[f"{RECORD_NAME}.base"] = ArrayRecord({name: Array(np.asarray(array)) for name, array in bad.items()})

    strategy = Compressed(everyone(), up=UP, down=DOWN).observe(on_round)
    strategy.start(grid, model_record(model), num_rounds=4)
    assert seen[1:] == [(NODES, 0)] * 4
    assert len([e for e in strategy.ledger if (e.round, e.node, e.direction) == (3, "1", "down")]) == 2


def test_why_nobody_counts_is_said_in_one_line(make_grid, floats) -> None:
    app = ClientApp(mods=[compress()])

    @app.train()
    def train(message: Message, context: object) -> Message:
        raise RuntimeError("no\ndata")

    with pytest.raises(
        FedpressError, match=r"3 times; the last: node \d failed: RuntimeError\('no\\ndata'\)"
    ) as caught:
        Compressed(everyone(), up=UP).start(make_grid(NODES, app=app), model_record(floats), num_rounds=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [({"exclude": "head.*"}, "head"), ({"limits": {"max_norm": 0}}, "max-norm")],
)
def test_a_setting_that_cannot_be_meant_is_refused(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(SettingError, match=says):
        Compressed(FedAvg(), **{key: FederationLimits(**v) if key == "limits" else v for key, v in wrong.items()})


def test_a_model_of_nothing_is_said_to_be_one(make_grid) -> None:
    with pytest.raises(SettingError, match="no tensors"):
        Compressed(everyone()).start(make_grid(NODES), ArrayRecord({}), num_rounds=1)


def test_a_policy_without_a_text_of_its_own_can_be_resumed(make_grid, model, tmp_path) -> None:
    from fedpress.compression import Codec, parse
    from fedpress.server.rate_control.policies import RateContext

    class Own(Policy):
        def codec(self, known: RateContext) -> Codec:
            return parse(UP)

    for rounds, resume in ((1, False), (2, True)):
        strategy = Compressed(everyone(), up=Own(), down=DOWN, checkpoint=tmp_path, resume=resume)
        strategy.start(make_grid(NODES), model_record(model), num_rounds=rounds)


@pytest.mark.parametrize("kind", [FedAvg, FedMedian])
def test_a_node_that_went_away_is_left_out_though_superlink_answers_in_its_own_name(
    kind: type[FedAvg], make_grid, model, caplog
) -> None:
    grid = make_grid(NODES)
    deliver = grid.send_and_receive

    def send_and_receive(messages, *, timeout=None):
        taken = list(messages)
        named = len(grid.sent) >= NODES  # it was there when all were asked who they are
        gone = [message for message in taken if named and grid.partition[message.metadata.dst_node_id] == ODD]
        for message in gone:
            message.metadata.__dict__["_message_id"] = "of the one that is gone"
        kept = [message for message in taken if message not in gone]
        errors = [create_message_error_unavailable_res_message(m.metadata, "node_unavail") for m in gone]
        assert all(error.metadata.src_node_id not in grid.partition for error in errors)
        return [*errors, *deliver(kept, timeout=timeout)]

    grid.send_and_receive = send_and_receive
    seen = []
    strategy = Compressed(everyone(kind), up=UP, down=DOWN).observe(seen.append)
    strategy.start(grid, model_record(model), num_rounds=2)
    assert [(len(done.counted), done.failures) for done in seen[1:]] == [(NODES - 1, 1)] * 2
    assert f"node {ODD} failed" in caplog.text


@pytest.mark.parametrize("value", [[1.0] * 100_000, "a\n2026-11-30 INFO all is well\x1b[2J"])
def test_what_a_node_says_is_one_short_line_of_the_log(make_grid, model, caplog, value: object) -> None:
    grid = make_grid(NODES)
    field = "training_seconds" if isinstance(value, str) else "num-examples"
    record = RECORD_NAME if isinstance(value, str) else "metrics"
    spoil(grid, lambda content: content[record].update({field: value}))
    Compressed(everyone(), up=UP).start(grid, model_record(model), num_rounds=1)
    ours = [each.getMessage() for each in caplog.records if each.name == RECORD_NAME]
    lines = [line for line in ours if field in line]
    assert lines
    assert all(line.isprintable() and len(line) < 300 for line in lines)
