"""Laws of what one reply may contribute: whatever a node claims or sends, it moves the model like a few others."""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg, FedMedian

from fedpress.client import compress
from fedpress.protocol.arrays import model_record
from fedpress.server import Compressed
from fedpress.server.aggregation.client_update import FederationLimits

NODES = 10
BAD = 3  # the partition that attacks
MODEL = {"weight": np.zeros(50, np.float32), "steps": np.array(0)}


def app_of(scale: float = 1.0, claim: float = 10, grows: bool = False) -> ClientApp:
    """An app whose update is a step of norm 1 in every node; the bad node multiplies it, and claims what it likes."""
    app = ClientApp(mods=[compress()])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        ((key, record),) = message.content.array_records.items()
        bad = context.node_config["partition-id"] == BAD
        step = (scale if bad else 1.0) / math.sqrt(50)
        step *= message.content["config"]["server-round"] if grows else 1
        trained = {"weight": record["weight"].numpy() + np.float32(step), "steps": record["steps"].numpy() + 1}
        arrays = ArrayRecord({name: Array(np.asarray(array)) for name, array in trained.items()})
        metrics = MetricRecord({"num-examples": claim if bad else 10, "loss": 1.0 if bad else 0.0})
        return Message(RecordDict({key: arrays, "metrics": metrics}), reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        bad = context.node_config["partition-id"] == BAD
        metrics = MetricRecord({"num-examples": claim if bad else 10, "loss": 1.0 if bad else 0.0})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return app


@pytest.fixture
def steps(make_grid) -> Callable[..., list]:
    """Return the rounds of a federation, after the initial one."""

    def run(app: ClientApp, *, rounds: int = 1, nodes: int = NODES, strategy=FedAvg, up="none", **limits) -> list:
        seen = []
        inner = strategy(fraction_train=1.0, fraction_evaluate=1.0, min_train_nodes=nodes)
        strategy = Compressed(inner, up=up, down="none", limits=FederationLimits(**limits)).observe(seen.append)
        strategy.start(make_grid(nodes, app=app), model_record(MODEL), num_rounds=rounds)
        return seen

    return run


def moved(done) -> float:
    """Return how far the model is from where it started, along the honest direction."""
    return float(done.model["weight"].sum() / math.sqrt(50))


@pytest.mark.parametrize("strategy", [FedAvg, FedMedian])
@pytest.mark.parametrize(("scale", "claim"), [(-10.0, 10), (-1.0, 10**9), (-1e6, 10**9), (1e9, 2**62), (10.0, 10)])
def test_one_bad_node_of_ten_moves_the_model_like_a_few_honest_ones(scale, claim, strategy, steps) -> None:
    (_, one) = steps(app_of(scale, claim), strategy=strategy)
    assert 0.45 <= moved(one) <= 1.3
    assert len(one.counted) == NODES


@pytest.mark.parametrize(("scale", "claim"), [(-10.0, 10**9), (-1.0, 1), (1e9, 10), (1e-6, 1e-6)])
def test_one_bad_node_of_two_moves_the_model_no_further_than_three_honest_ones(
    scale, claim, steps, monkeypatch
) -> None:
    """Half of the replies is no minority: it may turn or stop the model, which stays finite and near."""
    monkeypatch.setitem(globals(), "BAD", 1)
    seen = steps(app_of(scale, claim), nodes=2, rounds=3)
    ways = [abs(moved(one) - moved(before)) for before, one in pairwise(seen)]
    assert max(ways) <= 2 + 1e-3


@pytest.mark.parametrize("claim", [10, 20, 30, 1000])
def test_an_honest_node_with_more_examples_counts_at_least_in_proportion_to_them(claim: int, steps) -> None:
    """Its update is larger, since it trains for more steps; it weighs at most three medians, and is no attacker."""
    (_, one) = steps(app_of(scale=claim / 10, claim=claim))
    weight = min(claim, 30) / 10
    assert moved(one) >= (NODES - 1 + weight) / (NODES - 1 + weight) - 1e-4
    assert moved(one) <= (NODES - 1 + 3) / (NODES - 1 + weight) + 1e-4


def test_what_a_node_claims_and_sends_is_recorded(steps) -> None:
    (_, one) = steps(app_of(-10.0, 1000))
    bad, honest = one.counted[str(BAD)], one.counted["0"]
    assert (bad.claim, bad.weight) == (1000, 30)
    assert (bad.norm, honest.norm) == (pytest.approx(10, rel=1e-5), pytest.approx(1, rel=1e-5))
    assert (honest.claim, honest.weight) == (10, 10)


def test_a_claim_dominates_no_metric_either(steps) -> None:
    (_, one) = steps(app_of(claim=10**9))
    assert one.evaluated["loss"] == pytest.approx(3 / 12)


@pytest.mark.parametrize("up", ["none", "lowrank(nmse=0.1) | ans", "qsgd(4) | ans"])
def test_without_an_unusual_reply_the_bounds_change_no_bit(up: str, make_grid, model) -> None:
    models = []
    for limits in (FederationLimits(), FederationLimits(norm_multiple=math.inf, weight_multiple=math.inf)):
        strategy = Compressed(
            FedAvg(fraction_train=1.0, fraction_evaluate=0.0), up=up, down="none", limits=limits, seed=3
        )
        result = strategy.start(make_grid(5), model_record(model), num_rounds=3)
        models.append({name: array.numpy() for name, array in result.arrays.items()})
    for name, array in models[0].items():
        np.testing.assert_array_equal(array, models[1][name])


def test_a_larger_update_than_max_norm_is_scaled_down_to_it(steps) -> None:
    (_, one) = steps(app_of(), max_norm=0.25)
    assert moved(one) == pytest.approx(0.25, rel=1e-5)
    assert len(one.counted) == NODES


def test_the_bounds_follow_norms_that_grow_together(steps) -> None:
    rounds = steps(app_of(grows=True), rounds=6)
    assert moved(rounds[-1]) == pytest.approx(sum(range(1, 7)), rel=1e-4)


def test_a_node_alone_is_bounded_by_what_was_usual_before_also_after_a_restart(make_grid, tmp_path) -> None:
    """The tracked norm is part of the checkpoint."""
    for rounds, app in ((2, app_of()), (3, app_of(scale=100.0))):
        grid, seen = make_grid(NODES, app=app), []
        grid.after = lambda reply, grid=grid, rounds=rounds: (
            rounds == 2 or "metrics" not in reply.content or grid.partition[reply.metadata.src_node_id] == BAD
        )
        strategy = Compressed(
            FedAvg(fraction_train=1.0, fraction_evaluate=0.0), up="none", down="none", checkpoint=tmp_path, resume=True
        ).observe(seen.append)
        strategy.start(grid, model_record(MODEL), num_rounds=rounds)
    assert set(seen[-1].counted) == {str(BAD)}
    assert 2 + 2 < moved(seen[-1]) < 2 + 4


def test_updates_of_nothing_bound_nobody(steps) -> None:
    """Where most nodes have nothing to learn, those that do are not scaled down to nothing."""
    app = app_of()
    (_, one) = steps(app, nodes=NODES)
    still = ClientApp(mods=[compress()])

    @still.train()
    def train(message: Message, context: Context) -> Message:
        ((key, record),) = message.content.array_records.items()
        step = np.float32(context.node_config["partition-id"] == BAD)
        arrays = {
            name: Array(np.asarray(array.numpy() + step.astype(array.numpy().dtype))) for name, array in record.items()
        }
        return Message(
            RecordDict({key: ArrayRecord(arrays), "metrics": MetricRecord({"num-examples": 1})}), reply_to=message
        )

    (_, one) = steps(still)
    assert one.model["weight"][0] == pytest.approx(0.1)
