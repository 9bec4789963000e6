"""A run that is killed continues from its last complete round, and ends with the bits of one that was not."""

import csv
import json
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from fedpress.common.errors import DataError, SettingError
from fedpress.server.checkpointing.files import CheckpointContent, Checkpoints
from fedpress.simulations.run import settings_of

ROUNDS = 10
RUN = ["simulate", "--rounds", str(ROUNDS), "--clients", "12", "--per-round", "4", "--seed", "3"]
STATEFUL = ["--strategy", "FedAdam", "--set", "strategy.eta=0.01", "--up", "ef | topk(0.05) | ans"]


def start(*options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "fedpress", *RUN, *STATEFUL, *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def start_or_resume(folder: Path) -> subprocess.Popen[str]:
    begun = (folder / "checkpoint" / "config.json").exists()
    return start("--out", str(folder), "--resume" if begun else "--force")


def finish(process: subprocess.Popen[str]) -> None:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors


def rows(folder: Path) -> list[dict[str, Any]]:
    """What a result says of its rounds, but for what varies: times, and messages whose ids do."""
    result = json.loads((folder / "result.json").read_text())
    varies = {"seconds", "uplink_message_bytes", "downlink_message_bytes"}
    return [{key: value for key, value in row.items() if key not in varies} for row in result["rounds"]]


def clients(folder: Path) -> list[dict[str, str]]:
    with (folder / "clients.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    finish(start("--out", str(folder)))
    return folder


def kill_and_resume(folder: Path, moments: list[float]) -> int:
    """Start, kill after each of the moments (seconds), start again; return how often a run was alive to be killed."""
    kills = 0
    for moment in moments:
        process = start_or_resume(folder)
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.communicate()
        if process.returncode == 0:
            break
    finish(start_or_resume(folder))
    return kills


def check(folder: Path, whole: Path) -> None:
    ours, theirs = load_file(folder / "model.safetensors"), load_file(whole / "model.safetensors")
    assert {name: array.tobytes() for name, array in ours.items()} == {n: a.tobytes() for n, a in theirs.items()}
    assert rows(folder) == rows(whole)
    # Each node's bytes add up to the round's.
    for row in rows(folder):
        nodes = [node for node in clients(folder) if node["round"] == str(row["round"])]
        assert sum(node["examples"] != "" for node in nodes) == row["clients"]
        for way, column in (("uplink", "up_frame"), ("downlink", "down_frame")):
            assert sum(int(node[column]) for node in nodes) == row[f"{way}_bytes"]
    assert [row["round"] for row in rows(folder)] == list(range(1, ROUNDS + 1))


def test_a_killed_run_ends_as_one_that_was_not(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for last in (1, 4):
        process = start_or_resume(folder)
        for line in process.stderr or []:
            if line.startswith(f"round {last}/"):
                break
        process.send_signal(signal.SIGKILL)
        process.communicate()
    finish(start("--out", str(folder), "--resume"))
    check(folder, whole)
    # A run that is over is not run again.
    before = (folder / "result.json").read_text()
    finish(start("--out", str(folder), "--resume"))
    assert json.loads(before)["rounds"] == json.loads((folder / "result.json").read_text())["rounds"]


def test_a_finished_run_trained_longer_is_one_that_was_that_long_from_the_start(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    finish(start("--rounds", "3", "--out", str(folder)))
    finish(start("--out", str(folder), "--resume"))
    check(folder, whole)
    assert json.loads((folder / "result.json").read_text())["config"]["rounds"] == ROUNDS


@pytest.mark.slow
def test_killed_at_twenty_random_moments(whole: Path, tmp_path: Path) -> None:
    dice = random.Random(20)
    kills = 0
    for attempt in range(40):
        folder = tmp_path / str(attempt)
        kills += kill_and_resume(folder, [dice.uniform(0.5, 6.0) for _ in range(4)])
        check(folder, whole)
        if kills >= 20:
            return
    pytest.fail(f"only {kills} runs were alive when they were to be killed")


def test_other_settings_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(SettingError, match="out must be the folder of a run"):
        settings_of({"out": str(out), "rounds": 3, "resume": True}, None)
    saved = settings_of({"out": str(out), "rounds": 3}, None)
    (out / "checkpoint").mkdir(parents=True)
    (out / "checkpoint" / "config.json").write_text(json.dumps(saved.to_config()))
    assert settings_of({"out": str(out), "resume": True, "workers": 1}, None).server.rounds == 3
    with pytest.raises(SettingError, match=r"seed must be that of the run in .*, 0, got 1"):
        settings_of({"out": str(out), "resume": True, "seed": 1}, None)
    assert settings_of({"out": str(out), "resume": True, "rounds": 5}, None).server.rounds == 5
    with pytest.raises(SettingError, match=r"rounds must be at least 3, .* got 2"):
        settings_of({"out": str(out), "resume": True, "rounds": 2}, None)
    with pytest.raises(SettingError, match="out must be given"):
        settings_of({"resume": True}, None)


def test_a_spoilt_checkpoint_gives_way_to_the_one_before(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.load() is None
    for number in range(4):
        checkpoints.save(CheckpointContent(number, {"number": number}, {}))
    files = sorted(tmp_path.glob("*.safetensors"))
    assert [path.stem for path in files] == ["round-000002", "round-000003"]
    files[1].write_bytes(files[1].read_bytes()[:20])
    loaded = checkpoints.load()
    assert loaded is not None
    assert loaded.facts == {"number": 2}
    files[0].write_bytes(b"")
    with pytest.raises(DataError, match="no checkpoint in"):
        checkpoints.load()
