"""Somebody else's Flower app, compared as it is."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

APP = Path(__file__).parents[2] / "examples" / "flower-torch"


def compare(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fedpress", "compare", "--out", str(folder), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_an_app_is_compared_with_its_own_strategy(tmp_path: Path) -> None:
    out = tmp_path / "out"
    settings = ["--set", "clients=4", "--set", "num-server-rounds=3", "--seeds", "0"]
    said = compare(out, "--app", str(APP), *settings, "--codecs", "none; fp16 > fp16", "--json")
    assert said.returncode == 0, said.stderr
    plain, half = json.loads(said.stdout)["candidates"]
    assert plain["workload"] == "flower-torch"
    assert plain["up_ratio"] == pytest.approx(1.0, abs=0.02)
    assert half["up_ratio"] == pytest.approx(2.0, abs=0.05)
    assert plain["final"]["mean"] > 0.5
    assert len(list(out.glob("cells/*/final_model.pt"))) == 2, "what the app writes stays with its run"


def test_what_is_no_app_is_said_to_be_none(tmp_path: Path) -> None:
    said = compare(tmp_path / "out", "--app", str(tmp_path))
    assert (said.returncode, "holds no Flower app" in said.stderr) == (1, True)
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert "describes no Flower app" in compare(tmp_path / "out", "--app", str(tmp_path)).stderr
    (tmp_path / "pyproject.toml").write_text("[tool.flwr.app.components]\nserverapp='gone.a:b'\nclientapp='gone.c:d'\n")
    assert "cannot be imported" in compare(tmp_path / "out", "--app", str(tmp_path)).stderr
    said = compare(tmp_path / "out", "--app", str(APP), "--set", "speed=3")
    assert (said.returncode, "'speed'" in said.stderr) == (2, True)
