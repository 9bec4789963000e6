"""Laws of models that grow: real trees, on real data, come out as they went in, in fewer bytes."""

from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedXgbBagging, FedXgbCyclic
from sklearn.datasets import load_breast_cancer

from fedpress.client import compress
from fedpress.compression import FrameError, UpdateError
from fedpress.compression.errors import SettingError
from fedpress.compression.lossless import expand, squeeze
from fedpress.compression.message import KEY
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
def test_trees_are_those_of_the_bare_strategy(kind: type, app, make_grid) -> None:
    bare = grow(make_strategy(kind), make_grid(NODES, app=app(), ordered=True))
    strategy = Compressed(make_strategy(kind))
    ours = grow(strategy, make_grid(NODES, app=app(compress()), ordered=True))
    x, y = load_breast_cancer(return_X_y=True)
    booster = xgboost.Booster()
    booster.load_model(bytearray(ours.tobytes()))
    assert ((booster.predict(xgboost.DMatrix(x)) > 0.5) == y).mean() > 0.9
    if kind is FedXgbBagging:  # the cyclic one begins with any of the nodes
        assert ours.tobytes() == bare.tobytes()
    up, down = (strategy.ledger.totals(direction=way, purpose="train") for way in ("up", "down"))
    assert up.ratio > 2
    assert down.ratio > 2
    assert up.message > up.frame > 0


def test_a_spoilt_reply_is_left_out(app, make_grid, caplog: pytest.LogCaptureFixture) -> None:
    grid = make_grid(NODES, app=app(compress()))

    def spoil(reply: Message) -> bool:
        if "arrays" in reply.content.array_records and grid.partition[reply.metadata.src_node_id] == 1:
            reply.content["arrays"]["frame"].data = reply.content["arrays"]["frame"].data[:-3]
        return True

    grid.after = spoil
    strategy = Compressed(make_strategy(FedXgbBagging))
    assert grow(strategy, grid).size
    assert caplog.text.count("node 1: its reply is refused") == ROUNDS


def test_the_same_seed_picks_the_same_nodes(app, make_grid) -> None:
    grids = [make_grid(NODES, app=app(compress()), seed=seed) for seed in (1, 2)]
    models = [grow(Compressed(make_strategy(FedXgbCyclic), seed=5), grid) for grid in grids]
    orders = [
        [grid.partition[m.metadata.dst_node_id] for m in grid.sent if m.content[KEY]["ask"] == "lossless"]
        for grid in grids
    ]
    assert orders[0] == orders[1]
    assert models[0].tobytes() == models[1].tobytes()


def test_what_cannot_be_with_trees_is_said_at_once(tmp_path) -> None:
    for given in ({"up": "fp16"}, {"down": "fp16"}, {"checkpoint": tmp_path}, {"on_round": print}):
        with pytest.raises(SettingError, match="trees for models"):
            Compressed(make_strategy(FedXgbBagging), **given)


def test_a_hostile_layout_takes_no_memory() -> None:
    frame, text = squeeze({"0": np.arange(100, dtype=np.uint8)})
    assert expand(frame, text)["0"].tolist() == list(range(100))
    for claim in ('[["0",[99999999999],"uint8"]]', '[["0",[101],"uint8"]]', "[]", "{"):
        with pytest.raises(FrameError):
            expand(frame, claim)
    with pytest.raises(UpdateError, match="float32"):
        squeeze({"0": np.zeros(3, np.float32)})
