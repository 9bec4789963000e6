"""What plain Flower accepts of an app or a strategy, the two lines accept; what cannot work is said at once."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.server.strategy import FedAvg as OldFedAvg
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, FedMedian, Strategy

from fedpress.client import compress
from fedpress.common.errors import DivergedError, FedpressError, SettingError
from fedpress.compression import Update
from fedpress.protocol.arrays import arrays_of, model_record
from fedpress.server import Compressed

from .conftest import PLAIN

UP, DOWN = "ef | topk(0.5) | ans", "lowrank(nmse=0.1) | ans"
INITIAL = {"base": np.ones((6, 5), np.float32), "head": np.zeros(5, np.float32), "steps": np.array([3], np.int64)}


def app_of(train: Callable[[Update, int], dict[str, np.ndarray]], *, mod: bool = True) -> ClientApp:
    """An app that replies with the arrays of `train(model, partition)`, and with its partition as a metric."""
    app = ClientApp(mods=[compress()] if mod else [])

    @app.train()
    def _(message: Message, context: Context) -> Message:
        partition = int(str(context.node_config["partition-id"]))
        new = train(arrays_of(message.content["arrays"]), partition)
        metrics = MetricRecord({"num-examples": 10, "partition": partition})
        return Message(RecordDict({"arrays": model_record(new), "metrics": metrics}), reply_to=message)

    return app


def fedavg(kind: type[FedAvg] = FedAvg, **given: object) -> FedAvg:
    return kind(fraction_evaluate=0.0, **given)


WIDTHS: dict[str, Callable[[Update], dict[str, np.ndarray]]] = {
    "float64": lambda model: {**model, "base": model["base"].astype(np.float64) + 0.5},
    "float16": lambda model: {**model, "base": model["base"].astype(np.float16) + np.float16(0.5)},
    "big-endian": lambda model: {**model, "base": (model["base"] + np.float32(0.5)).astype(">f4")},
    "a counter as float": lambda model: {
        **model,
        "base": model["base"] + np.float32(0.5),
        "steps": model["steps"].astype(np.float64),
    },
    "a counter as int32": lambda model: {
        **model,
        "base": model["base"] + np.float32(0.5),
        "steps": model["steps"].astype(np.int32),
    },
    "an axis of length one": lambda model: {"base": (model["base"] + np.float32(0.5))[None], "steps": np.array(3)},
    "a part of the model": lambda model: {"base": model["base"] + np.float32(0.5)},
}


@pytest.mark.parametrize("kind", [FedAvg, FedMedian])
@pytest.mark.parametrize("width", WIDTHS)
def test_replies_are_converted_to_the_layout_of_the_request(width: str, kind: type[FedAvg], make_grid) -> None:
    grid = make_grid(2, app=app_of(lambda model, _: WIDTHS[width](model)))
    result = Compressed(fedavg(kind), **PLAIN).start(grid, model_record(INITIAL), num_rounds=2)
    model = arrays_of(result.arrays)
    assert {name: (a.dtype, a.shape) for name, a in model.items()} == {
        name: (a.dtype, a.shape) for name, a in INITIAL.items()
    }
    assert np.allclose(model["base"], 2.0)
    assert model["steps"] == 3
    assert not model["head"].any()


@pytest.mark.parametrize(
    "change",
    [
        {"base": np.ones((5, 6), np.float32)},
        {"another": np.ones(3, np.float32)},
        {"steps": np.array([2.5])},
        {"base": np.ones((6, 5), np.complex64)},
    ],
)
def test_a_reply_that_is_not_of_the_model_names_the_tensor(change: dict[str, np.ndarray], make_grid) -> None:
    grid = make_grid(2, app=app_of(lambda model, _: {**model, **change}))
    with pytest.raises(FedpressError, match=next(iter(change))):
        Compressed(fedavg()).start(grid, model_record(INITIAL), num_rounds=1)


def test_a_reply_without_tensors_is_not_a_model(make_grid) -> None:
    grid = make_grid(2, app=app_of(lambda model, _: {}))
    with pytest.raises(FedpressError, match="arrays"):
        Compressed(fedavg()).start(grid, model_record(INITIAL), num_rounds=1)


@pytest.mark.parametrize("up", ["none", UP])
def test_complex_tensors_travel_losslessly(up: str, make_grid) -> None:
    rng = np.random.default_rng(0)
    phases = (rng.normal(size=(4, 3)) + 1j * rng.normal(size=(4, 3))).astype(np.complex64)
    initial = {"w": np.ones((4, 3), np.float32), "phase": np.zeros((4, 3), np.complex64)}
    app = app_of(lambda model, _: {"w": model["w"] + np.float32(1), "phase": phases + model["phase"]})
    result = Compressed(fedavg(), up=up, down=DOWN).start(make_grid(2, app=app), model_record(initial), num_rounds=1)
    assert result.arrays["phase"].numpy().tobytes() == phases.tobytes()


class Scaffold(Strategy):
    """Control variates go both ways, beside the model and with its tensors' names."""

    def __init__(self) -> None:
        self.control = {name: np.zeros_like(array) for name, array in INITIAL.items()}
        self.seen: list[Update] = []

    def summary(self) -> None: ...

    def configure_train(self, round_: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid) -> Iterable[Message]:
        content = {"control": model_record(self.control), "arrays": arrays, "config": config}
        return [Message(RecordDict(dict(content)), node, "train") for node in grid.get_node_ids()]

    def aggregate_train(self, round_: int, replies: Iterable[Message]) -> tuple[ArrayRecord, MetricRecord]:
        contents = [reply.content for reply in replies]
        self.seen = [arrays_of(content["control-delta"]) for content in contents]
        for delta in self.seen:
            self.control = {name: array + delta[name] for name, array in self.control.items()}
        models = [arrays_of(content["arrays"]) for content in contents]
        return model_record({name: sum(m[name] for m in models) / len(models) for name in INITIAL}), MetricRecord()

    def configure_evaluate(self, *_: object) -> Iterable[Message]:
        return []

    def aggregate_evaluate(self, *_: object) -> None:
        return None


@pytest.mark.parametrize("up", ["none", UP])
def test_further_array_records_travel_losslessly_both_ways(up: str, make_grid) -> None:
    app, got = ClientApp(mods=[compress()]), []

    @app.train()
    def _(message: Message, context: Context) -> Message:
        assert list(message.content) == ["control", "arrays", "config"]
        got.append(arrays_of(message.content["control"]))
        rng = np.random.default_rng(len(got))
        delta = {name: rng.normal(size=a.shape).astype(a.dtype) for name, a in INITIAL.items()}
        model = {name: array + array.dtype.type(1) for name, array in arrays_of(message.content["arrays"]).items()}
        content = {"control-delta": model_record(delta), "arrays": model_record(model), "kept": ConfigRecord({"a": 1})}
        return Message(RecordDict(dict(content)), reply_to=message)

    strategy = Scaffold()
    outer = Compressed(strategy, up=up, down="none")
    outer.start(make_grid(2, app=app), model_record(INITIAL), num_rounds=2)
    assert len(strategy.seen) == 2
    sent = {name: sum(np.random.default_rng(i).normal(size=INITIAL[name].shape) for i in (1, 2)) for name in ("base",)}
    assert np.allclose(got[-1]["base"], sent["base"], atol=1e-5)
    raw = sum(array.nbytes for array in INITIAL.values())
    for direction in ("up", "down"):  # control variates are counted, as what they are
        assert outer.ledger.totals(direction=direction, purpose="train").frame > 4 * raw


@pytest.mark.parametrize("kind", [FedAvg, FedMedian])
def test_a_metrics_function_of_ones_own_is_given_the_nodes_replies(kind: type[FedAvg], make_grid) -> None:
    seen = []

    def summed(replies: list[RecordDict], weighted_by: str) -> MetricRecord:
        seen.append([r["metrics"]["partition"] for r in replies])
        if kind is FedAvg:  # Flower's FedMedian takes the arrays out of the replies first
            assert [r["arrays"]["base"].numpy().mean() for r in replies] == [1, 2, 3]
        return MetricRecord({"partitions": sum(r["metrics"]["partition"] for r in replies)})

    app = app_of(lambda model, partition: {**model, "base": model["base"] + np.float32(partition)})
    strategy = Compressed(fedavg(kind, train_metrics_aggr_fn=summed), **PLAIN)
    result = strategy.start(make_grid(3, app=app), model_record(INITIAL), num_rounds=1)
    assert seen == [[0, 1, 2]]
    assert result.train_metrics_clientapp[1]["partitions"] == 3


@pytest.mark.parametrize("huge", [np.nan, np.inf, 3e38])
def test_training_that_diverges_is_named_with_its_node(huge: float, make_grid, caplog) -> None:
    grown = np.full((6, 5), huge, np.float32)
    one = app_of(lambda model, partition: {**model, "base": grown} if partition == 1 else model)
    result = Compressed(fedavg(), up=UP, down=DOWN).start(make_grid(3, app=one), model_record(INITIAL), num_rounds=2)
    assert np.isfinite(result.arrays["base"].numpy()).all()
    assert "node 1" in caplog.text
    with pytest.raises(DivergedError, match=r"round 1: node \d"):
        Compressed(fedavg(), up=UP, down=DOWN).start(
            make_grid(3, app=app_of(lambda model, _: {**model, "base": grown})), model_record(INITIAL), num_rounds=2
        )


@pytest.fixture
def deployed(make_grid, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """Return the numbers of nodes that counted in each round with one node a round, where others may join."""
    monkeypatch.setattr(time, "sleep", lambda _: None)

    def run(app: Callable[[Message, Context], Message], seed: int) -> list[int]:
        grid, counted = make_grid(4, app=app), []
        grid.most_nodes = lambda: None
        grid.names = lambda: {node: str(partition) for node, partition in grid.partition.items()}
        one = fedavg(fraction_train=1e-9, min_train_nodes=1)
        strategy = Compressed(one, **PLAIN, seed=seed).observe(lambda done: counted.append(len(done.counted)))
        strategy.start(grid, model_record(INITIAL), num_rounds=3)
        return counted[1:]

    return run


@pytest.mark.parametrize("seed", range(6))
def test_a_deployed_run_outlives_a_node_whose_training_diverges(seed: int, deployed) -> None:
    grown = np.full((6, 5), np.inf, np.float32)
    one = app_of(lambda model, partition: {**model, "base": grown} if partition == 1 else model)
    assert deployed(one, seed) == [1, 1, 1]
    with pytest.raises(DivergedError, match=r"round 1: node \d"):
        deployed(app_of(lambda model, _: {**model, "base": grown}), seed)


@pytest.mark.parametrize("seed", range(6))
def test_a_deployed_run_outlives_a_node_whose_app_lacks_the_mod(seed: int, deployed) -> None:
    with_mod, without = app_of(lambda model, _: model), app_of(lambda model, _: model, mod=False)

    def app(message: Message, context: Context) -> Message:
        return (without if context.node_config["partition-id"] == 1 else with_mod)(message, context)

    assert deployed(app, seed) == [1, 1, 1]
    with pytest.raises(FedpressError, match=r"compress\(\)"):
        deployed(without, seed)


@pytest.mark.parametrize("strategy", [OldFedAvg(), FedAvg, object(), None])
def test_what_is_no_strategy_is_refused(strategy: object) -> None:
    with pytest.raises(SettingError, match="strategy"):
        Compressed(strategy)  # type: ignore[arg-type]


def test_an_app_without_the_mod_is_told_so_in_round_one(make_grid) -> None:
    grid = make_grid(3, app=app_of(lambda model, _: model, mod=False))
    grid.names = lambda: {node: str(partition) for node, partition in grid.partition.items()}
    with pytest.raises(FedpressError, match=r"compress\(\)"):
        Compressed(fedavg()).start(grid, model_record(INITIAL), num_rounds=5)
    assert len(grid.sent) <= 6


@pytest.mark.parametrize("least", ["min_available_nodes", "min_train_nodes"])
def test_nothing_waits_for_nodes_that_cannot_come(least: str, make_grid) -> None:
    grid = make_grid(2, app=app_of(lambda model, _: model))
    grid.most_nodes = lambda: 2
    with pytest.raises(SettingError, match=f"3 nodes.*{least}"):
        Compressed(fedavg(**{least: 3})).start(grid, model_record(INITIAL), num_rounds=1)
    assert not grid.sent


@pytest.mark.parametrize(
    "wrong",
    [{"up": None}, {"up": 3}, {"seed": -1}, {"seed": "x"}, {"seed": 2**63}, {"extensions": [3]}],
    ids=str,
)
def test_wrong_arguments_are_named_when_the_strategy_is_made(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=f"{next(iter(wrong))} must be"):
        Compressed(fedavg(), **wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"initial_arrays": INITIAL},
        {"num_rounds": -1},
        {"num_rounds": 1.5},
        {"timeout": 0},
        {"timeout": "x"},
        {"train_config": {"lr": 0.1}},
        {"evaluate_fn": 3},
    ],
    ids=str,
)
def test_wrong_arguments_are_named_before_the_first_round(
    wrong: dict[str, Any], make_grid: Callable[..., Grid]
) -> None:
    with pytest.raises(SettingError, match=f"{next(iter(wrong)).replace('_', '.')} must be"):
        Compressed(fedavg()).start(make_grid(2), **{"initial_arrays": model_record(INITIAL), **wrong})


def test_a_checkpoint_folder_that_cannot_be_made_is_named(make_grid: Callable[..., Grid], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingError, match="file/x cannot be made"):
        Compressed(fedavg(), checkpoint=tmp_path / "file" / "x").start(make_grid(2), model_record(INITIAL))


def test_an_app_that_returns_no_message_is_told_so(make_grid: Callable[..., Grid]) -> None:
    app = ClientApp(mods=[compress()])
    app.train()(lambda message, context: None)
    with pytest.raises(FedpressError, match="must return a Message, got NoneType"):
        Compressed(fedavg()).start(make_grid(2, app=app), model_record(INITIAL), num_rounds=1)


def test_an_initial_model_must_be_a_function() -> None:
    with pytest.raises(SettingError, match="initial must be a function"):
        compress(INITIAL)  # type: ignore[arg-type]
