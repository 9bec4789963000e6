"""Personalised runs, whole: what is said of each node, the same bits anywhere, and what is refused beforehand."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpress.common.checked_files import write_json
from fedpress.common.errors import SettingError
from fedpress.server.run.accuracy_summary import spread
from fedpress.server.run.recorder import Recorder
from fedpress.simulations.run import run
from fedpress.simulations.settings import resolve

SETTINGS = {
    **{"rounds": 3, "clients": 8, "per-round": 4, "alpha": 0.1, "seed": 3, "holdout": 0.3, "local-epochs": 1},
    **{"tensors": "head", "finetune-epochs": 1, "fraction-evaluate": 1.0},
}


def outcome(folder: Path, **settings: object) -> tuple[bytes, str, dict[str, Any]]:
    """Return the final model's file, what is said of each node, and the result without what differs from run to run."""
    result = run(resolve({**SETTINGS, "out": str(folder), **settings}))
    varies = ("seconds", "uplink_message_bytes", "downlink_message_bytes", "evaluate_message_bytes")
    rows = [{key: value for key, value in row.items() if key not in varies} for row in result["rounds"]]
    final = {key: value for key, value in result["final"].items() if key != "finetune_message_bytes"}
    said = {"rounds": rows, "final": final}
    return (folder / "model.safetensors").read_bytes(), (folder / "personal.csv").read_text(), said


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[bytes, str, dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("personal") / "run"
    return folder, outcome(folder, workers=1)


def test_each_node_is_heard(whole: tuple[Path, tuple[bytes, str, dict[str, Any]]]) -> None:
    _, (_, table, said) = whole
    rows = list(csv.DictReader(table.splitlines()))
    assert [row["node"] for row in rows] == [str(node) for node in range(SETTINGS["clients"])]
    for way in ("before", "after"):
        values = [float(row[way]) for row in rows]
        assert said["final"]["nodes"][way] == spread(values)
        assert said["final"]["nodes"][way]["worst"] == min(values)
    assert said["final"]["finetune_bytes"] == 0  # all of them hold the last model, which they evaluated
    # Before fine-tuning they say of the last model what they said in the last round.
    assert said["rounds"][-1]["nodes_accuracy"] == said["final"]["nodes"]["before"]
    assert all(
        set(row["nodes_accuracy"]) == {"nodes", "mean", "worst", "p10", "median", "p90"} for row in said["rounds"]
    )


def test_the_rows_of_nodes_hold_their_scores_and_training_losses(
    whole: tuple[Path, tuple[bytes, str, dict[str, Any]]],
) -> None:
    folder, (_, _, said) = whole
    with (folder / "clients.csv").open(encoding="utf-8", newline="") as file:
        nodes = list(csv.DictReader(file))
    for row in said["rounds"]:
        rows = [node for node in nodes if node["round"] == str(row["round"])]
        found = spread([float(node["accuracy"]) for node in rows if node["accuracy"]])
        assert found == pytest.approx(row["nodes_accuracy"])
        assert all(bool(node["loss"]) == bool(node["accuracy"]) for node in rows)
        trained = [(float(node["train_loss"]), float(node["examples"])) for node in rows if node["examples"]]
        mean = sum(loss * examples for loss, examples in trained) / sum(examples for _, examples in trained)
        assert row["train_loss"] == pytest.approx(mean)


def test_for_any_number_of_workers(whole: tuple[Path, tuple[bytes, str, dict[str, Any]]], tmp_path: Path) -> None:
    assert outcome(tmp_path / "two", workers=2) == whole[1]


def test_a_run_that_is_killed_goes_on_to_the_same_end(
    whole: tuple[Path, tuple[bytes, str, dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stop(Exception):
        pass

    def stop(recorder: Recorder, *done: object) -> None:
        write(recorder, *done)
        if getattr(done[0], "number", 2) == 2:  # in the second round, and after fine-tuning
            raise Stop

    for name in ("__call__", "finish"):
        with monkeypatch.context() as patch:
            write = getattr(Recorder, name)
            patch.setattr(Recorder, name, stop)
            with pytest.raises(Stop):
                outcome(tmp_path / "run", workers=1, resume=name == "finish")
            if name == "finish":  # killed before the result was written
                result = json.loads((tmp_path / "run" / "result.json").read_text())
                del result["final"]["nodes"]
                write_json(tmp_path / "run" / "result.json", result)
                (tmp_path / "run" / "personal.csv").unlink()
    assert outcome(tmp_path / "run", workers=1, resume=True) == whole[1]
    assert outcome(tmp_path / "run", workers=1, resume=True) == whole[1]  # one that is over is not run again


@pytest.mark.slow
def test_on_both_engines(whole: tuple[Path, tuple[bytes, str, dict[str, Any]]], tmp_path: Path) -> None:
    assert outcome(tmp_path / "ray", workers=2, engine="ray") == whole[1]


def test_a_share_of_the_nodes_may_fine_tune(tmp_path: Path) -> None:
    codecs = {"up": "lowrank(nmse=0.1) | ans", "down": "lowrank(nmse=0.3) | ans"}
    more = {"finetune-share": 0.5, "rounds": 1, "fraction-evaluate": 0.0, "tensors": [], **codecs}
    _, table, said = outcome(tmp_path / "run", **more)
    assert len(table.splitlines()) == 5
    assert said["final"]["nodes"]["after"]["nodes"] == 4
    lone = said["rounds"][0]["uplink_bytes"] / 4  # of one delta, about
    assert lone / 10 < said["final"]["finetune_bytes"] < 4 * lone * 10
    _, _, longer = outcome(tmp_path / "run", **{**more, "rounds": 2, "resume": True})
    assert all("evaluate_bytes" not in row for row in longer["rounds"])  # fine-tuning belongs to no later round


def test_spread_is_of_nodes() -> None:
    values = np.linspace(0, 1, 11)
    found = spread(list(values))
    assert (found["nodes"], found["worst"]) == (11, 0.0)
    assert [found[name] for name in ("p10", "median", "mean", "p90")] == pytest.approx([0.1, 0.5, 0.5, 0.9])


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(SettingError, match="holdout must be above 0 with finetune-epochs"):
        resolve({"finetune-epochs": 1})
    with pytest.raises(SettingError, match="finetune-share must be above 0 and at most 1, got 0"):
        resolve({"finetune-share": 0.0})
