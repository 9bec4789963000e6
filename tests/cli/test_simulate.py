"""`fedpress simulate` as a separate process, on real data: what it prints, what its folder holds, how it stops."""

import json
import os
import pty
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from safetensors.numpy import load_file

import fedpress
from fedpress.settings import RunSettings
from fedpress.simulations.settings import resolve, simulation_schema
from fedpress.simulations.workloads import task

from .conftest import Said, finish, start

SMALL = ["--clients", "8", "--per-round", "3", "--rounds", "3", "--alpha", "2.0", "--seed", "5"]
ROW = {
    "round": int,
    "accuracy": float,
    "loss": float,
    "train_loss": float,
    "uplink_bytes": int,
    "downlink_bytes": int,
    "uplink_message_bytes": int,
    "downlink_message_bytes": int,
    "clients": int,
    "failures": int,
    "seconds": float,
    "codecs": dict,
}
TOTALS = {
    "uplink_bytes": int,
    "downlink_bytes": int,
    "uplink_message_bytes": int,
    "downlink_message_bytes": int,
    "uplink_ratio": float,
    "downlink_ratio": float,
    "ratio": float,
    "seconds": float,
}
PNG = b"\x89PNG\r\n\x1a\n"


def check_schema(result: dict[str, Any]) -> None:
    """It is what docs/how-to/simulate.md says of result.json."""
    kinds = {
        "schema": int,
        "checksum": str,
        "config": dict,
        "versions": dict,
        "initial": dict,
        "rounds": list,
        "totals": dict,
        "final": dict,
    }
    assert {key: type(value) for key, value in result.items()} == kinds
    assert result["schema"] == 1
    assert {"python", "fedpress", "flwr", "torch", "numpy"} <= set(result["versions"])
    for scores in (result["initial"], result["final"]):
        assert {key: type(value) for key, value in scores.items()} == {"accuracy": float, "loss": float}
    for number, row in enumerate(result["rounds"], start=1):
        assert {key: type(value) for key, value in row.items()} == ROW
        assert row["round"] == number
    assert {key: type(value) for key, value in result["totals"].items()} == TOTALS


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Said]:
    """A run whose standard output is for a machine."""
    folder = tmp_path_factory.mktemp("json")
    words = ["simulate", *SMALL, "--json", "--draw-partition", "--out", "run"]
    return folder / "run", finish(start(*words, folder=folder))


def test_json_is_the_result_and_nothing_else(done: tuple[Path, Said]) -> None:
    folder, said = done
    assert said.code == 0, said.err
    assert said.err == ""
    assert json.loads(said.out) == json.loads((folder / "result.json").read_text())


def test_the_result_is_of_its_schema_and_adds_up(done: tuple[Path, Said]) -> None:
    folder, _ = done
    result = json.loads((folder / "result.json").read_text())
    check_schema(result)
    rounds, totals = result["rounds"], result["totals"]
    assert len(rounds) == 3
    assert all((row["clients"], row["failures"]) == (3, 0) for row in rounds)
    for key in ("uplink_bytes", "downlink_bytes", "uplink_message_bytes", "downlink_message_bytes"):
        assert totals[key] == sum(row[key] for row in rounds)
    for way in ("uplink", "downlink"):
        assert 0 < totals[f"{way}_bytes"] < totals[f"{way}_message_bytes"]
    # Each of nine updates is the model in float32, at least.
    floats = sum(array.nbytes for array in load_file(folder / "model.safetensors").values())
    assert totals["uplink_ratio"] == pytest.approx(9 * floats / totals["uplink_bytes"], rel=1e-4)
    assert result["final"] == {key: rounds[-1][key] for key in ("accuracy", "loss")}
    given = {"clients": 8, "per-round": 3, "rounds": 3, "alpha": 2.0, "partition": "dirichlet", "seed": 5}
    flat = simulation_schema().flatten(given)
    assert {key: result["config"][key] for key in flat} == flat
    assert Path(result["config"]["run.out"]) == folder


def test_the_model_has_the_accuracy_that_the_result_says(done: tuple[Path, Said]) -> None:
    folder, _ = done
    result = json.loads((folder / "result.json").read_text())
    assert (
        task(RunSettings.from_config(result["config"])).evaluate(load_file(folder / "model.safetensors"))
        == result["final"]
    )
    assert (
        task(RunSettings.from_config(result["config"])).evaluate(
            task(RunSettings.from_config(result["config"])).initial()
        )
        == result["initial"]
    )


def test_the_folder_holds_pictures_and_the_log(done: tuple[Path, Said]) -> None:
    folder, _ = done
    pictures = ["accuracy_by_bytes.png", "accuracy_by_round.png", "partition.png"]
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [*pictures, "checkpoint", "clients.csv", "model.safetensors", "result.json", "run.log"]
    )
    assert all((folder / name).read_bytes().startswith(PNG) for name in pictures)
    assert "Compressed" in (folder / "run.log").read_text()


def test_the_configuration_of_a_result_gives_the_same_result(done: tuple[Path, Said], tmp_path: Path) -> None:
    first = json.loads((done[0] / "result.json").read_text())
    (tmp_path / "run.toml").write_text(
        "\n".join(f"{key} = {json.dumps(value)}" for key, value in first["config"].items() if key != "run.out")
    )
    said = finish(start("simulate", "--config", "run.toml", "--workers", "1", folder=tmp_path))
    assert said.code == 0, said.err
    folder = tmp_path / "runs" / "digits-001"  # no --out: a new folder under runs/
    again = json.loads((folder / "result.json").read_text())
    assert (folder / "model.safetensors").read_bytes() == (done[0] / "model.safetensors").read_bytes()
    exact = ("accuracy", "loss", "uplink_bytes", "downlink_bytes")
    assert [[row[key] for key in exact] for row in again["rounds"]] == [
        [row[key] for key in exact] for row in first["rounds"]
    ]
    # In a pipe: a plain line a round, then the table on standard output.
    lines = said.err.splitlines()
    assert [line.split()[:2] for line in lines] == [["round", f"{number}/3"] for number in (1, 2, 3)]
    assert "\x1b" not in said.err + said.out
    assert f"test accuracy {again['final']['accuracy']:.4f}" in said.out
    assert f"in {folder}" in said.out
    assert f"{again['totals']['uplink_ratio']:.1f}" in said.out


def test_force_overwrites(tmp_path: Path) -> None:
    words = ["simulate", "--clients", "3", "--per-round", "1", "--rounds", "1", "--out", "run", "--json"]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "result.json").write_text("old")
    said = finish(start(*words, "--force", folder=tmp_path))
    assert said.code == 0, said.err
    check_schema(json.loads((tmp_path / "run" / "result.json").read_text()))


def test_progress_is_live_on_a_terminal(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    environment = {"TERM": "xterm", "COLUMNS": "120"}
    words = ["simulate", *SMALL, "--out", "run"]
    before = {key: os.environ.get(key) for key in environment}
    os.environ.update(environment)
    try:
        process = start(*words, folder=tmp_path, stderr=theirs)
    finally:
        for key, value in before.items():
            os.environ.pop(key) if value is None else os.environ.update({key: value})
    os.close(theirs)
    shown = b""
    while True:
        try:
            chunk = os.read(ours, 1 << 16)
        except OSError:  # a terminal whose last user is gone
            break
        if not chunk:
            break
        shown += chunk
    os.close(ours)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert b"accuracy" in shown
    assert b"clients/s" in shown
    assert b"s left" in shown
    assert b"/3" in shown
    assert "test accuracy" in out


@pytest.mark.parametrize(
    ("engine", "stop", "everyone", "code", "words"),
    [
        # Ctrl-C at a terminal reaches all that the terminal's session runs, and not the command alone.
        pytest.param("inprocess", signal.SIGINT, True, 130, "fedpress: stopped\n", id="ctrl-c"),
        pytest.param("inprocess", signal.SIGINT, False, 130, "fedpress: stopped\n", id="sigint"),
        pytest.param("inprocess", signal.SIGTERM, False, 143, "", id="sigterm"),
        pytest.param("ray", signal.SIGINT, True, 130, "fedpress: stopped\n", id="ray", marks=pytest.mark.slow),
    ],
)
def test_a_stopped_run_keeps_its_rounds_and_leaves_no_process(
    tmp_path: Path, engine: str, stop: signal.Signals, everyone: bool, code: int, words: str
) -> None:
    size = ["--rounds", "100000", "--workers", "2"]
    process = start("simulate", *SMALL, *size, "--engine", engine, "--out", "run", folder=tmp_path)
    result = tmp_path / "run" / "result.json"
    while not (result.exists() and json.loads(result.read_text())["rounds"]):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    started = psutil.Process(process.pid).children(recursive=True)
    assert len(started) >= 2
    (os.killpg if everyone else os.kill)(process.pid, stop)
    said = finish(process)
    assert said.code == code
    assert said.err.endswith(words)
    assert "Traceback" not in said.err
    assert [child for child in started if alive(child)] == []
    kept = json.loads(result.read_text())
    check_schema(kept)
    assert kept["rounds"]
    assert (
        task(RunSettings.from_config(kept["config"])).evaluate(load_file(tmp_path / "run" / "model.safetensors"))
        == kept["final"]
    )


def alive(process: psutil.Process) -> bool:
    """Whether it runs: a dead process whose parent died too may wait to be buried by whoever does that here."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_it_is_the_version_that_is_tested(tmp_path: Path) -> None:
    assert finish(start("--version", folder=tmp_path)) == Said(0, f"{fedpress.__version__}\n", "")


@pytest.mark.slow
def test_with_no_arguments_it_learns_to_read_digits(tmp_path: Path) -> None:
    said = finish(start("simulate", "--json", folder=tmp_path))
    assert said.code == 0, said.err
    result = json.loads(said.out)
    assert result["final"]["accuracy"] > 0.9
    assert result["totals"]["uplink_ratio"] > 1
    assert result["totals"]["downlink_ratio"] > 1
    settings = RunSettings.from_config(result["config"])
    assert settings.change("run", out="") == resolve({})


def test_training_that_diverges_is_an_outcome_with_a_name(tmp_path: Path) -> None:
    words = ("--workload", "digits", "--clients", "3", "--per-round", "3", "--rounds", "4", "--workers", "1")
    said = finish(start("simulate", *words, "--set", "lr=1e9", folder=tmp_path))
    assert said.code == 1
    assert "node" in said.err.splitlines()[-1]
    assert "norm" in said.err.splitlines()[-1]
    assert "Traceback" not in said.err
