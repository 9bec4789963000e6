"""Trees, whose models grow, are passed through: real ones, on real data, come out as the bare strategy makes them."""

import logging
from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedXgbBagging, FedXgbCyclic
from sklearn.datasets import load_breast_cancer

from fedpress.client import compress
from fedpress.common.errors import SettingError
from fedpress.protocol.messages import RECORD_NAME
from fedpress.server import Compressed

xgboost = pytest.importorskip("xgboost")
NODES, ROUNDS = 4, 3
TREES = {"objective": "binary:logistic", "max_depth": 4, "eta": 0.3, "nthread": 1, "seed": 0}


@pytest.fixture
def app() -> Callable[..., ClientApp]:
    """Boosts two trees a round on a node's share of the breast cancer data; written as Flower's tutorial has it."""
    x, y = load_breast_cancer(return_X_y=True)

    def make(*mods: object) -> ClientApp:
        app = ClientApp(mods=list(mods))

        @app.train()
        def train(message: Message, context: Context) -> Message:
            part = slice(int(context.node_config["partition-id"]), None, NODES)
            data = xgboost.DMatrix(x[part], label=y[part])
            grown = message.content["arrays"]["0"].numpy().tobytes()
            known = xgboost.Booster(TREES, model_file=bytearray(grown)) if grown else None
            booster = xgboost.train(TREES, data, num_boost_round=2, xgb_model=known)
            if message.content["config"]["keep"] == "new" and grown:
                booster = booster[booster.num_boosted_rounds() - 2 :]
            raw = np.frombuffer(booster.save_raw("json"), np.uint8)
            metrics = MetricRecord({"num-examples": len(y[part])})
            return Message(RecordDict({"arrays": ArrayRecord([raw]), "metrics": metrics}), reply_to=message)

        return app

    return make


def grow(strategy, grid) -> np.ndarray:
    keep = "new" if isinstance(getattr(strategy, "strategy", strategy), FedXgbBagging) else "all"
    empty = ArrayRecord([np.zeros(0, np.uint8)])
    result = strategy.start(grid, empty, num_rounds=ROUNDS, train_config=ConfigRecord({"keep": keep}))
    return result.arrays["0"].numpy()


def make_strategy(kind: type) -> FedXgbBagging | FedXgbCyclic:
    least = {} if kind is FedXgbCyclic else {"min_train_nodes": NODES, "min_evaluate_nodes": 0}
    return kind(fraction_evaluate=0.0, min_available_nodes=NODES, **least)


@pytest.mark.parametrize("kind", [FedXgbBagging, FedXgbCyclic])
def test_trees_are_those_of_the_bare_strategy(kind: type, app, make_grid, caplog: pytest.LogCaptureFixture) -> None:
    bare = grow(make_strategy(kind), make_grid(NODES, app=app(), ordered=True))
    strategy, grid = Compressed(make_strategy(kind)), make_grid(NODES, app=app(compress()), ordered=True)
    with caplog.at_level(logging.WARNING, RECORD_NAME):
        ours = grow(strategy, grid)
    x, y = load_breast_cancer(return_X_y=True)
    booster = xgboost.Booster()
    booster.load_model(bytearray(ours.tobytes()))
    assert ((booster.predict(xgboost.DMatrix(x)) > 0.5) == y).mean() > 0.9
    if kind is FedXgbBagging:  # the cyclic one begins with any of the nodes
        assert ours.tobytes() == bare.tobytes()
    assert len([record for record in caplog.records if record.name == RECORD_NAME]) == 1
    assert not list(strategy.ledger)
    assert grid.sent
    assert not any(RECORD_NAME in message.content for message in grid.sent)


def test_the_mod_leaves_a_message_without_its_record_as_it_is() -> None:
    sent = Message(RecordDict({"arrays": ArrayRecord([np.arange(3, dtype=np.uint8)])}), 1, "train")
    context = Context(1, 1, {}, RecordDict(), {})
    seen = []

    def handle(message: Message, _: Context) -> Message:
        seen.append(message)
        return message

    assert compress()(sent, context, handle) is sent
    assert seen == [sent]
    assert list(sent.content) == ["arrays"]
    assert not context.state


def test_what_cannot_be_with_trees_is_said_at_once(tmp_path) -> None:
    for given in ({"up": "fp16"}, {"down": "fp16"}, {"checkpoint": tmp_path}):
        with pytest.raises(SettingError, match="are trees"):
            Compressed(make_strategy(FedXgbBagging), **given)
    with pytest.raises(SettingError, match="are trees"):
        Compressed(make_strategy(FedXgbBagging)).observe(print)
