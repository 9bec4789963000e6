"""Laws of a whole federation: mod, strategy wrapper and downlink together, on nodes that the tests can look into."""

import random
import tracemalloc
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import FedAvg, Result, Strategy

from fedpress.client import compress
from fedpress.client.mod.node_state import ClientState
from fedpress.common.errors import FedpressError, SettingError
from fedpress.compression import Layout, parse
from fedpress.compression.updates import version_of
from fedpress.compression.weight_masks import UNPRUNED
from fedpress.protocol.arrays import model_record
from fedpress.protocol.messages import LOSSLESS, RECORD_NAME
from fedpress.server import Compressed
from fedpress.server.aggregation.aggregate import aggregate
from fedpress.server.aggregation.client_update import ClientUpdate, EncodedUpdate, NodeModel
from fedpress.server.aggregation.contribution_bounds import ContributionBounds
from fedpress.server.downlink.model_store import ModelStore

from .conftest import PLAIN

LOSSY = "ef | topk(0.1) | ans"
DOWN = "topk(0.2) | ans"
NODES = 6


def plain(record: ArrayRecord) -> dict[str, np.ndarray]:
    return {name: array.numpy() for name, array in record.items()}


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(
        one[k].dtype == other[k].dtype and np.array_equal(one[k], other[k]) for k in one
    )


def run(strategy: Strategy, grid, model, rounds: int = 4) -> Result:
    return strategy.start(grid, model_record(model), num_rounds=rounds)


def fedavg(**kwargs: object) -> FedAvg:
    return FedAvg(fraction_train=0.67, fraction_evaluate=0.0, min_train_nodes=4, **kwargs)


def test_same_seed_same_bits_whatever_the_ids_and_the_order_of_replies(make_grid, model) -> None:
    results = [
        run(Compressed(fedavg(), up=LOSSY, down=DOWN, seed=5), make_grid(NODES, seed=shuffle), model)
        for shuffle in (1, 2)
    ]
    assert same(plain(results[0].arrays), plain(results[1].arrays))
    other = run(Compressed(fedavg(), up=LOSSY, down=DOWN, seed=6), make_grid(NODES, seed=1), model)
    assert not same(plain(results[0].arrays), plain(other.arrays))


WIDENING = {"FedAdam", "QFedAvg"}
ARGUMENTS = {
    "FedAvgM": {"server_learning_rate": 0.7, "server_momentum": 0.9},
    "FedProx": {"proximal_mu": 0.1},
    "QFedAvg": {"client_learning_rate": 0.1},
    "FedTrimmedAvg": {"beta": 0.25},
    "Krum": {"num_malicious_nodes": 1},
    "MultiKrum": {"num_malicious_nodes": 1, "num_nodes_to_select": 2},
    "Bulyan": {"num_malicious_nodes": 0},
}


@pytest.mark.parametrize(
    "name",
    [
        "FedAvg",
        "FedAvgM",
        "FedAdagrad",
        "FedAdam",
        "FedYogi",
        "FedProx",
        "FedMedian",
        "FedTrimmedAvg",
        "QFedAvg",
        "Krum",
        "MultiKrum",
        "Bulyan",
    ],
)
def test_with_none_both_ways_every_strategy_is_itself(name: str, make_grid, floats) -> None:
    """Bit for bit: lossless frames carry whole models, and the streamed mean is FedAvg's own arithmetic.

    Two strategies turn a float32 model into float64; wrapped, it keeps its layout, so there only float32's bits agree.
    """

    def make() -> Strategy:
        return getattr(flower, name)(
            fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=NODES, **ARGUMENTS.get(name, {})
        )

    wrapped = run(Compressed(make(), **PLAIN, seed=3), make_grid(NODES), floats, rounds=3)
    bare = run(make(), make_grid(NODES, ordered=True), floats, rounds=3)
    if name in WIDENING:
        for tensor, array in plain(wrapped.arrays).items():
            np.testing.assert_allclose(array, plain(bare.arrays)[tensor], atol=1e-6)
    else:
        assert same(plain(wrapped.arrays), plain(bare.arrays))
    assert wrapped.train_metrics_clientapp == bare.train_metrics_clientapp


def test_counters_survive_and_averages_are_rounded(make_grid, model) -> None:
    result = run(Compressed(fedavg(), up=LOSSY, down=DOWN), make_grid(NODES), model, rounds=3)
    final = plain(result.arrays)
    assert {k: (v.dtype, v.shape) for k, v in final.items()} == {k: (v.dtype, v.shape) for k, v in model.items()}
    assert final["steps"] == model["steps"] + 3


def test_every_node_holds_the_model_that_the_server_says(make_grid, model) -> None:
    grid = make_grid(NODES)
    run(Compressed(fedavg(), up=LOSSY, down=DOWN), grid, model, rounds=5)
    layout = Layout.of(model)
    orders = {
        m.metadata.dst_node_id: m.content[RECORD_NAME] for m in grid.sent if m.content[RECORD_NAME]["kind"] == "train"
    }
    assert len(orders) >= 4
    for node, order in orders.items():
        memory = ClientState.load(grid.contexts[node].state)
        assert memory.version == order["version"] == version_of(plain(memory.base), layout)


def test_a_lost_reply_loses_nothing(make_grid, model, wanted) -> None:
    """Over a whole run in which messages and replies get lost: what counted plus what is kept is what was wanted."""
    grid = make_grid(NODES)
    dice = random.Random(11)
    grid.before = lambda message: dice.random() > 0.1
    counted: dict[int, list[np.ndarray]] = {i: [] for i in range(NODES)}
    layout = Layout.of(model)

    def after(reply: Message) -> bool:
        if dice.random() < 0.25:
            return False
        if not reply.has_error() and reply.content.array_records:
            (record,) = reply.content.array_records.values()
            (frame,) = record.values()
            update = grid.decode(LOSSY, frame.data, layout)
            counted[grid.partition[reply.metadata.src_node_id]].append(layout.flatten(update)[0])
        return True

    grid.after = after
    run(Compressed(fedavg(), up=LOSSY, down=DOWN, seed=2), grid, model, rounds=25)
    for partition in range(NODES):
        asked = wanted(grid, partition, layout)
        memory = ClientState.load(grid.context(partition).state)
        # Until the node is told whether its last frame was accepted, the test, which knows it, picks the state.
        last = grid.delivered.get(partition)
        state = memory.after if last or not memory.sent else memory.lost
        kept = np.asarray(state.get("residual", np.zeros(layout.size, np.float32)), np.float64)
        sent = np.sum(counted[partition], axis=0, dtype=np.float64) if counted[partition] else 0
        assert len(asked) > 0
        np.testing.assert_allclose(sent + kept, np.sum(asked, axis=0, dtype=np.float64), atol=2e-5)


def test_a_node_that_lost_its_state_gets_a_key_frame_in_the_same_round(
    make_grid, model, caplog: pytest.LogCaptureFixture
) -> None:
    grid = make_grid(NODES)
    everyone = FedAvg(fraction_train=1.0, fraction_evaluate=0.0)
    rounds = []

    def on_round(done) -> None:
        rounds.append((len(done.counted), done.failures))
        if done.number == 2:
            grid.context(1).state = RecordDict()

    strategy = Compressed(everyone, up=LOSSY, down=DOWN, key="none").observe(on_round)
    run(strategy, grid, model, rounds=4)
    assert rounds[1:] == [(NODES, 0)] * 4
    asked = [e for e in strategy.ledger if e.round == 3 and e.node == "1" and e.direction == "down"]
    layout = Layout.of(model)
    assert [e.frame >= layout.nbytes for e in asked] == [False, True]
    assert "round 3: node 1 lost the model that it held" in caplog.text


def test_the_ledger_is_what_passed(make_grid, model) -> None:
    grid = make_grid(NODES)
    strategy = Compressed(fedavg(), up=LOSSY, down=DOWN)
    passed = {"up": 0, "down": 0}

    def frames(message: Message) -> int:
        return sum(len(a.data) for r in message.content.array_records.values() for a in r.values())

    def before(message: Message) -> bool:
        passed["down"] += frames(message)
        return True

    def after(reply: Message) -> bool:
        passed["up"] += frames(reply)
        return True

    grid.before, grid.after = before, after
    run(strategy, grid, model)
    for way in ("up", "down"):
        totals = strategy.ledger.totals(direction=way)
        assert totals.frame == passed[way]
        assert totals.message > totals.frame
        assert totals.plain == 4 * 4 * Layout.of(model).nbytes  # rounds x nodes a round
    assert sum(t["up"].frame for t in strategy.ledger.by_node().values()) == passed["up"]


@pytest.mark.parametrize("mean", [True, False])
@pytest.mark.parametrize("evil", ["nan weight", "no examples", "garbage", "other layout", "two metrics", "raises"])
def test_a_bad_reply_is_refused_and_the_round_goes_on(evil: str, mean: bool, make_grid, model) -> None:
    grid = make_grid(NODES)

    def spoil(reply: Message) -> bool:
        if grid.partition[reply.metadata.src_node_id] != 2 or not reply.content.array_records:
            return True
        ((key, record),) = reply.content.array_records.items()
        frame = record["frame"]
        if evil == "nan weight":
            reply.content["metrics"]["num-examples"] = float("nan")
        elif evil == "no examples":
            reply.content["metrics"]["num-examples"] = 0
        elif evil == "garbage":
            frame.data = bytes(reversed(frame.data))
        elif evil == "other layout":
            other = {"x": np.ones(3, np.float32)}
            codec = parse(LOSSY)
            layout = Layout.of(other)
            frame.data = codec.encode(other, codec.init(layout), np.random.default_rng(0))[0]
        elif evil == "two metrics":
            reply.content["more"] = MetricRecord({"num-examples": 1})
        else:
            del reply.content[key]
        return True

    grid.after = spoil
    seen = []
    inner = FedAvg if mean else flower.FedMedian
    strategy = Compressed(inner(fraction_train=1.0, fraction_evaluate=0.0), up=LOSSY, down=DOWN).observe(seen.append)
    run(strategy, grid, model, rounds=2)
    assert [(len(done.counted), done.failures) for done in seen[1:]] == [(NODES - 1, 1)] * 2


def test_a_round_with_too_few_replies_is_repeated_then_given_up(make_grid, model) -> None:
    grid = make_grid(NODES)
    waves = []
    grid.after = lambda reply: len(waves) >= 2 or bool(reply.content.config_records[RECORD_NAME].get("name"))
    send = grid.send_and_receive

    def counting(messages, *, timeout=None):
        messages = list(messages)
        replies = send(messages, timeout=timeout)
        if grid.sent[-1].content[RECORD_NAME]["kind"] == "train":
            waves.append(len(messages))
        return replies

    grid.send_and_receive = counting
    seen = []
    run(Compressed(fedavg(), up=LOSSY, down=DOWN).observe(seen.append), grid, model, rounds=1)
    assert (len(seen[1].counted), seen[1].failures) == (4, 8)

    grid.after = lambda reply: bool(reply.content.config_records[RECORD_NAME].get("name"))
    with pytest.raises(FedpressError, match="round 1: fewer than 1 replies counted, 3 times"):
        run(Compressed(fedavg(), up=LOSSY, down=DOWN), grid, model, rounds=1)


def test_nodes_evaluate_the_model_that_they_were_sent(make_grid, floats) -> None:
    seen = []
    inner = FedAvg(fraction_train=1.0, fraction_evaluate=1.0)
    strategy = Compressed(inner, up=LOSSY, down=DOWN).observe(seen.append)
    result = run(strategy, make_grid(NODES), floats, rounds=3)
    for number in (1, 2, 3):
        total = sum(array.astype(np.float64).sum() for array in seen[number].model.values())
        assert result.evaluate_metrics_clientapp[number]["total"] == pytest.approx(total)
        assert strategy.ledger.totals(round=number, purpose="evaluate").frame > 0


def test_an_app_without_the_mod_is_told_so(make_grid, model) -> None:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: object) -> Message:
        return Message(message.content, reply_to=message)

    with pytest.raises(FedpressError, match=r"mods=\[compress\(\)\]"):
        run(Compressed(fedavg()), make_grid(NODES, app=app), model)


def test_the_mod_lets_other_strategies_through(make_grid, floats) -> None:
    result = run(FedAvg(fraction_evaluate=0.0), make_grid(NODES, ordered=True), floats, rounds=1)
    assert plain(result.arrays).keys() == floats.keys()


def test_an_update_with_nan_fails_its_node_alone(make_grid, floats) -> None:
    app = ClientApp(mods=[compress()])

    @app.train()
    def train(message: Message, context) -> Message:
        ((key, record),) = message.content.array_records.items()
        trained = {name: array.numpy() for name, array in record.items()}
        if context.node_config["partition-id"] == 0:
            trained["bias"][:2] = np.nan
        content = {key: ArrayRecord({n: Array(a) for n, a in trained.items()})}
        return Message(RecordDict({**content, "m": MetricRecord({"num-examples": 1})}), reply_to=message)

    seen = []
    strategy = Compressed(FedAvg(fraction_evaluate=0.0), up=LOSSY, down=DOWN).observe(seen.append)
    run(strategy, make_grid(NODES, app=app), floats, rounds=1)
    assert (len(seen[1].counted), seen[1].failures) == (NODES - 1, 1)


@pytest.mark.parametrize("wrong", [{"up": "topc(0.1)"}, {"down": "ef | topk(0.1)"}])
def test_wrong_settings_are_refused_at_once(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingError):
        Compressed(FedAvg(), **wrong)
    with pytest.raises(SettingError):
        Compressed(Compressed(FedAvg()))


def test_lossless_is_the_codec_of_key_frames(model) -> None:
    layout = Layout.of(model)
    frame, _ = parse(LOSSLESS).encode(model, {}, np.random.default_rng(0))
    assert same(parse(LOSSLESS).decode(frame, layout), model)
    assert ConfigRecord({"frame": frame})


def test_the_mean_takes_a_few_models_of_memory_however_many_vote(make_grid) -> None:
    rng = np.random.default_rng(0)
    model = {"weight": rng.normal(size=(500, 1000)).astype(np.float32)}  # 2 MB
    layout, codec = Layout.of(model), parse("topk(0.01) | ans")
    frame, _ = codec.encode(model, {}, rng)
    grid = make_grid(1)
    (node,) = grid.get_node_ids()
    message = Message(RecordDict({"c": ConfigRecord({"x": 1})}), node, "train")
    message.metadata.__dict__["_message_id"] = "1"
    peaks = {}
    for count in (4, 40):
        with TemporaryDirectory() as folder:
            base = NodeModel(model, layout, UNPRUNED, ModelStore(layout, Path(folder), 1 << 30))
            updates = [
                ClientUpdate(
                    node=str(i),
                    claim=1.0,
                    weight=1.0,
                    message=Message(RecordDict({"m": MetricRecord({"num-examples": 1})}), reply_to=message),
                    encoded=EncodedUpdate(frame, codec, layout, b""),
                    base=base,
                )
                for i in range(count)
            ]
            tracemalloc.start()
            outcome = aggregate(
                FedAvg(fraction_evaluate=0.0),
                1,
                updates,
                request=message,
                least=1,
                exact=model,
                bounds=ContributionBounds(norm_multiple=3.0, weight_multiple=3.0, private=False),
            )
            peaks[count] = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert outcome is not None
        assert len(outcome.updates) == count
    assert peaks[40] < peaks[4] + layout.nbytes
    assert peaks[40] < 10 * layout.nbytes


def test_asking_for_names_is_counted_apart(make_grid, model) -> None:
    strategy = Compressed(fedavg(), up=LOSSY, down=DOWN)
    run(strategy, make_grid(NODES), model, rounds=1)
    asked = [entry for entry in strategy.ledger if entry.purpose == "ask"]
    assert [entry.direction for entry in asked] == ["down"] * NODES + ["up"] * NODES
    assert {entry.node for entry in asked} == {str(partition) for partition in range(NODES)}
    assert all(entry.message > entry.frame == entry.plain == 0 for entry in asked)
