"""Laws of checkpoints: objects are restored from their parts, and a resumed federation has the bits of a whole one."""

from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import FedAvg

from fedpress.compression import SettingError
from fedpress.flower.grid import RestoredStates
from fedpress.protocol.arrays import model_record
from fedpress.server import Compressed
from fedpress.server.checkpointing.object_state import put_back, take_apart

from .conftest import DirectGrid

UP, DOWN = "ef | topk(0.1) | ans", "lowrank(nmse=0.3) | ans"


class Stop(Exception):
    """A crash."""


@pytest.mark.parametrize(
    "thing",
    [
        None,
        3,
        2.5,
        "text",
        b"bytes",
        np.float32(1.5),
        {"a": [1, (2, 3)], 5: {b"x": {1, 2}}},
        {"m": np.arange(6).reshape(2, 3), "scalar": np.array(2.0)},
        MetricRecord({"a": 1, "b": [0.5, 1.5]}),
        ConfigRecord({"a": b"1", "b": [True, False]}),
    ],
)
def test_what_is_taken_apart_is_put_back(thing: object) -> None:
    arrays: dict[str, np.ndarray] = {}
    back = put_back(take_apart(thing, arrays, "x"), arrays)
    np.testing.assert_equal(back, thing)
    assert type(back) is type(thing)


def test_arrays_keep_their_order_in_memory_to_themselves() -> None:
    arrays: dict[str, np.ndarray] = {}
    record = ArrayRecord({"t": Array(np.arange(6.0).reshape(2, 3).T.copy(order="F"))})
    back = put_back(take_apart(record, arrays, "x"), arrays)
    np.testing.assert_array_equal(back["t"].numpy(), record["t"].numpy())


def test_how_many_nodes_a_round_waits_for_is_not_state() -> None:
    """A run that is resumed for fewer nodes would wait for the others for ever."""
    arrays: dict[str, np.ndarray] = {}
    before = flower.FedAvgM(server_momentum=0.5, min_train_nodes=4, min_evaluate_nodes=3, min_available_nodes=9)
    before.momentum_vector = [np.arange(3.0)]
    after = flower.FedAvgM(server_momentum=0.5, min_train_nodes=2, min_evaluate_nodes=1, min_available_nodes=2)
    put_back(take_apart(before, arrays, "x"), arrays, after)
    assert (after.min_train_nodes, after.min_evaluate_nodes, after.min_available_nodes) == (2, 1, 2)
    np.testing.assert_equal(after.momentum_vector, before.momentum_vector)


@pytest.mark.parametrize(
    ("name", "crash"), [("FedAvg", 0), ("FedAvg", 4), ("FedAvgM", 1), ("FedAdam", 2), ("FedYogi", 4), ("FedMedian", 1)]
)
def test_a_federation_goes_on_as_if_nothing_had_been(name: str, crash: int, make_grid, model, tmp_path: Path) -> None:
    def federation(folder: Path, *, resume: bool = False, stop: int = -1) -> Compressed:
        arguments = {"server_momentum": 0.5} if name == "FedAvgM" else {}
        inner = getattr(flower, name)(fraction_train=0.67, fraction_evaluate=0.0, min_train_nodes=4, **arguments)

        def on_round(done) -> None:
            if done.number == stop + 1:
                raise Stop

        return Compressed(inner, up=UP, down=DOWN, seed=5, checkpoint=folder, resume=resume).observe(on_round)

    def saved(grid: DirectGrid) -> DirectGrid:
        """Give the grid the two methods of an engine that keeps its nodes' states."""
        kept: list[dict[int, RecordDict]] = []
        grid.snapshot = lambda: (
            kept.append({n: RecordDict(dict(c.state)) for n, c in grid.contexts.items()}) or len(kept)
        )

        def restore(number: int) -> RestoredStates:
            for node, state in kept[number - 1].items():
                grid.contexts[node].state = state
            return RestoredStates.RESTORED

        grid.restore = restore
        return grid

    whole = federation(tmp_path / "whole", stop=-9)
    grid = saved(make_grid(6))
    expected = whole.start(grid, model_record(model), num_rounds=6)

    grid = saved(make_grid(6))
    with pytest.raises(Stop):
        federation(tmp_path / "cut", stop=crash).start(grid, model_record(model), num_rounds=6)
    again = federation(tmp_path / "cut", resume=True, stop=-9)
    result = again.start(grid, model_record(model), num_rounds=6)
    assert {k: a.numpy().tobytes() for k, a in result.arrays.items()} == {
        k: a.numpy().tobytes() for k, a in expected.arrays.items()
    }
    assert result.train_metrics_clientapp == expected.train_metrics_clientapp
    frames = [[(e.round, e.node, e.frame) for e in s.ledger if e.purpose == "train"] for s in (whole, again)]
    assert sorted(frames[0]) == sorted(frames[1])


def test_what_cannot_be_saved_is_refused_before_round_one(make_grid, model, tmp_path: Path) -> None:
    class Secretive(FedAvg):
        def __init__(self) -> None:
            super().__init__(fraction_evaluate=0.0)
            self.socket = object()

    with pytest.raises(SettingError, match=r"Secretive\.socket is a object"):
        Compressed(Secretive(), checkpoint=tmp_path).start(make_grid(3), model_record(model), num_rounds=1)


def test_other_checkpoints_are_not_written_over(make_grid, model, tmp_path: Path) -> None:
    def federation(*, resume: bool = False, **more: object) -> Compressed:
        return Compressed(FedAvg(fraction_evaluate=0.0), checkpoint=tmp_path, resume=resume, **more)

    federation().start(make_grid(3), model_record(model), num_rounds=1)
    with pytest.raises(SettingError, match="resume"):
        federation().start(make_grid(3), model_record(model), num_rounds=1)
    with pytest.raises(SettingError, match="seed must be that of the checkpoint's run, 0, got 1"):
        federation(resume=True, seed=1).start(make_grid(3), model_record(model), num_rounds=1)
    other = {**model, "bias": model["bias"][:-1]}
    with pytest.raises(SettingError, match="'bias'"):
        federation(resume=True).start(make_grid(3), model_record(other), num_rounds=2)
    with pytest.raises(SettingError, match="checkpoint"):
        Compressed(FedAvg(), resume=True)
