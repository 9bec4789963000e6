"""Laws of asking nodes what they think of a model: counted, and of no effect on the federation."""

import json
import math
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from fedpress.client import compress
from fedpress.common.errors import SettingError
from fedpress.protocol.arrays import model_record
from fedpress.server import Compressed
from fedpress.server.extension import Extension, RoundContext
from fedpress.server.messaging.node_evaluation import ModelScore
from fedpress.server.run.recorder import RESULT, Recorder
from fedpress.server.strategy.round_record import Round
from fedpress.simulations.settings import resolve

NODES = 5
CODECS = {"up": "ef | topk(0.1) | ans", "down": "topk(0.2) | ans"}


def make_app(wrong: dict[int, dict[str, Any]] | None = None, initial: Any = None) -> ClientApp:
    """An app that adds noise, and whose loss is lower for models with a smaller sum."""
    app = ClientApp(mods=[compress(initial=initial)])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        ((key, record),) = message.content.array_records.items()
        node = int(context.node_config["partition-id"])
        rng = np.random.default_rng([node, int(message.content["config"]["server-round"])])
        moved = {name: array.numpy() + rng.normal(0, 0.1, array.shape).astype("f") for name, array in record.items()}
        content = {key: model_record(moved), "metrics": MetricRecord({"num-examples": 10 * (node + 1)})}
        return Message(RecordDict(content), reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        ((_, record),) = message.content.array_records.items()
        node = int(context.node_config["partition-id"])
        total = sum(float(array.numpy().sum()) for array in record.values())
        said = {"num-examples": node + 1, "loss": 1000 + total, "accuracy": 0.5} | (wrong or {}).get(node, {})
        return Message(RecordDict({"metrics": MetricRecord(said)}), reply_to=message)

    return app


class Asks(Extension):
    """An extension that asks and changes nothing."""

    name = "asks"
    settings = None

    def __init__(self) -> None:
        self.said: list[list[ModelScore]] = []
        self.updates = 0

    def after_aggregation(self, model: Any, context: RoundContext) -> Any:
        other = {name: array - np.float32(0.05) for name, array in model.items()}
        self.said.append(context.ask([model, other]))
        self.updates = len(context.updates)
        return model

    def round_facts(self, done: Round) -> dict[str, Any]:
        return {"asked": self.updates} if done.number else {}


def run(make_grid: Any, floats: Any, *asks: Asks, app: ClientApp | None = None) -> tuple[list[Any], Compressed]:
    seen: list[Any] = []
    inner = FedAvg(fraction_train=1.0, fraction_evaluate=0.0)
    strategy = Compressed(inner, **CODECS, extensions=asks, seed=3).observe(seen.append)
    strategy.start(make_grid(NODES, app=app or make_app()), model_record(floats), num_rounds=3)
    return seen, strategy


def test_the_federation_goes_on_as_if_nobody_had_been_asked(make_grid, floats) -> None:
    asks = Asks()
    asked, strategy = run(make_grid, floats, asks)
    plain, other = run(make_grid, floats)
    for one, two in zip(asked[:2], plain[:2], strict=True):
        assert all(np.array_equal(one.model[name], two.model[name]) for name in floats)
    assert len(asks.said) == 3
    assert [done.facts for done in asked] == [{}, {"asked": 5}, {"asked": 5}, {"asked": 5}]
    for number in (1, 2, 3):
        evaluated = strategy.ledger.totals(round=number, purpose="evaluate")
        assert evaluated.frame > 0
        assert evaluated.message > evaluated.frame
        assert other.ledger.totals(round=number, purpose="evaluate").message == 0
    # A node that evaluated another model holds that one, so what follows is coded from there, and near enough.
    for one, two in zip(asked, plain, strict=True):
        assert all(np.allclose(one.model[name], two.model[name], atol=0.3) for name in floats)


def test_what_nodes_say_is_weighed_by_their_examples(make_grid, floats) -> None:
    asks = Asks()
    run(make_grid, floats, asks, app=make_app({0: {"accuracy": 1.0}}))
    for first, second in asks.said:
        assert first.accuracy == pytest.approx((1 * 1.0 + 14 * 0.5) / 15)
        assert second.loss < first.loss


@pytest.mark.parametrize("name", ["base", "after", "lost", "frames"])
def test_an_extension_cannot_take_the_name_of_a_record_of_the_core(name: str) -> None:
    asks = Asks()
    setattr(asks, "name", name)  # noqa: B010  of the instance alone
    with pytest.raises(SettingError, match=name):
        Compressed(FedAvg(), extensions=[asks])


def test_an_extension_cannot_replace_a_rounds_own_entries(make_grid, floats, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(Asks, "round_facts", lambda *_: {"clients": 0})
    strategy = Compressed(FedAvg(fraction_train=1.0, fraction_evaluate=0.0), **CODECS, extensions=[Asks()])
    strategy.observe(Recorder(tmp_path, resolve({}), strategy.ledger))
    with pytest.raises(SettingError, match="clients"):
        strategy.start(make_grid(NODES, app=make_app()), model_record(floats), num_rounds=1)


@pytest.mark.parametrize("accuracy", [math.nan, math.inf, -math.inf])
def test_an_accuracy_that_is_not_finite_is_not_in_the_result(accuracy: float, make_grid, floats, tmp_path) -> None:
    app = make_app({2: {"accuracy": accuracy}})
    strategy = Compressed(FedAvg(fraction_train=1.0, fraction_evaluate=1.0), **CODECS)
    strategy.observe(Recorder(tmp_path, resolve({}), strategy.ledger))
    strategy.start(make_grid(NODES, app=app), model_record(floats), num_rounds=1)
    (row,) = json.loads((tmp_path / RESULT).read_text(), parse_constant=pytest.fail)["rounds"]
    assert (row["nodes_accuracy"]["nodes"], row["nodes_accuracy"]["worst"]) == (NODES - 1, 0.5)


@pytest.mark.parametrize(
    "wrong",
    [{"loss": float("nan")}, {"loss": -1.0}, {"accuracy": 1.5}, {"accuracy": [0.5]}, {"num-examples": -3}],
    ids=str,
)
def test_nonsense_is_left_out(wrong: dict[str, Any], make_grid, floats) -> None:
    asks = Asks()
    run(make_grid, floats, asks, app=make_app({0: {"accuracy": 1.0}, 4: wrong}))
    assert all(said[0].accuracy == pytest.approx((1 * 1.0 + 9 * 0.5) / 10) for said in asks.said)


def test_if_nobody_makes_sense_nothing_is_said(make_grid, floats) -> None:
    asks = Asks()
    run(make_grid, floats, asks, app=make_app({node: {"loss": -1.0} for node in range(NODES)}))
    assert asks.said == [[], [], []]
