"""A Flower app, compared with its own strategy and training."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Compare = Callable[..., subprocess.CompletedProcess[str]]  # calls the command
APP = Path(__file__).parents[2] / "examples" / "flower-torch"


def compare_outside(folder: Path, *options: str, within: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Compare in another process, for the modules of apps are imported there."""
    command = [sys.executable, "-m", "fedpress", "compare", "--out", str(folder), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=within)


def test_an_app_is_compared_with_its_own_strategy(tmp_path: Path) -> None:
    shutil.copytree(APP, tmp_path / APP.name)
    out = tmp_path / "out"
    settings = ["--set", "clients=4", "--set", "num-server-rounds=3", "--seeds", "0"]
    options = ["--app", APP.name, *settings, "--codecs", "none; fp16 > fp16", "--json"]
    said = compare_outside(Path("out"), *options, within=tmp_path)  # paths may be relative, wherever the runs are
    assert said.returncode == 0, said.stderr
    rows = {row["candidate"]: row for row in json.loads(said.stdout)["candidates"]}
    plain, half = rows["none"], rows["fp16 > fp16"]
    assert plain["workload"] == "flower-torch"
    assert plain["up_ratio"] == pytest.approx(1.0, abs=0.02)
    assert half["up_ratio"] == pytest.approx(2.0, abs=0.05)
    assert plain["final"]["mean"] > 0.5
    assert len(list(out.glob("cells/*/final_model.pt"))) == 2, "what the app writes stays with its run"


SILENT = """
import numpy as np
from fedpress.simulations.compare import comparable
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

client, server = ClientApp(), ServerApp()

@client.train()
def train(message, context):
    content = {"arrays": message.content["arrays"], "m": MetricRecord({"num-examples": 1})}
    return Message(RecordDict(content), reply_to=message)

@server.main()
def main(grid, context):
    said = context.run_config["says"]
    judge = (lambda number, arrays: MetricRecord({said: 87.5})) if said else None
    strategy = FedAvg(fraction_evaluate=0.0)
    if context.run_config["part"]:
        strategy = comparable(strategy, context)
    strategy.start(grid, ArrayRecord([np.ones((4, 4), np.float32)]), num_rounds=2, evaluate_fn=judge)
"""


@pytest.mark.parametrize(
    ("metric", "part", "says"),
    [
        ("", True, "must evaluate"),
        ("mse", True, "mse 87.5"),
        ("accuracy", True, "accuracy 87.5"),
        ("accuracy", False, "comparable(strategy, context)"),
    ],
)
def test_an_app_that_cannot_be_compared_fails_and_reaches_no_target(
    metric: str, part: bool, says: str, tmp_path: Path
) -> None:
    app = tmp_path / "app"
    app.mkdir()
    (app / "silent_app.py").write_text(SILENT)
    (app / "pyproject.toml").write_text(
        "[tool.flwr.app.components]\nserverapp='silent_app:server'\nclientapp='silent_app:client'\n"
        f"[tool.flwr.app.config]\nsays='{metric}'\npart={str(part).lower()}\n"
    )
    out = tmp_path / "out"
    said = compare_outside(out, "--app", str(app), "--set", "clients=2", "--seeds", "0", "--codecs", "none", "--json")
    assert said.returncode == 1, said.stderr
    result = json.loads(said.stdout)
    assert says in result["failures"][0]["reason"]
    assert result["advice"][0]["choice"] is None


def test_what_is_no_app_is_said_to_be_none(tmp_path: Path, compare: Compare) -> None:
    said = compare("--out", str(tmp_path / "out"), "--app", str(tmp_path))
    assert (said.returncode, "holds no Flower app" in said.stderr) == (2, True)
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert "pyproject.toml" in compare("--out", str(tmp_path / "out"), "--app", str(tmp_path)).stderr
    (tmp_path / "pyproject.toml").write_text("[tool.flwr.app.components]\nserverapp='gone.a:b'\nclientapp='gone.c:d'\n")
    assert "cannot be imported" in compare("--out", str(tmp_path / "out"), "--app", str(tmp_path)).stderr
    said = compare("--out", str(tmp_path / "out"), "--app", str(APP), "--set", "speed=3")
    assert (said.returncode, "'speed'" in said.stderr) == (2, True)
    said = compare("--out", str(tmp_path / "out"), "--app", str(APP), "--set", "seed=3")
    assert (said.returncode, "--seeds" in said.stderr) == (2, True)
    said = compare("--out", str(tmp_path / "out"), "--app", str(APP), "--codecs", "none; fp16 > ef | fp16")
    assert (said.returncode, "down must be a codec without state" in said.stderr) == (2, True)
