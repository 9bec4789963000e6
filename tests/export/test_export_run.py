"""A run's folder becomes files that give its answers, and run where neither torch nor fedpress is."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from fedpress.cli import main
from fedpress.compression.errors import DataError, SettingError
from fedpress.compression.model.int8 import unpack
from fedpress.simulations import export as module
from fedpress.simulations.export import export_run, slower
from fedpress.simulations.folder import read_folder

EXAMPLE = Path(__file__).parents[2] / "examples" / "onnxruntime" / "run.py"
EVERY = ("onnx", "executorch", "safetensors")
# Only after this are packages looked for: what stands for None cannot be imported.
_WITHOUT = """
import runpy, sys
sys.modules["torch"] = sys.modules["fedpress"] = sys.modules["onnx"] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def told(trained: Path) -> dict[str, Any]:
    """All formats of it, both ways."""
    for package in ("onnx", "onnxscript", "onnxruntime", "executorch", "torchao"):
        pytest.importorskip(package)
    return export_run(trained, EVERY, int8=True, examples=100)


def row(told: dict[str, Any], format: str, int8: bool) -> dict[str, Any]:
    (found,) = (row for row in told["rows"] if (row["format"], row["int8"]) == (format, int8))
    return found  # type: ignore[no-any-return]


def test_float32_gives_torch_s_answers_and_int8_nearly(told: dict[str, Any]) -> None:
    plain = row(told, "torch", False)
    for name in EVERY:
        assert row(told, name, False)["agreement"] == 1.0
        assert row(told, name, False)["accuracy"] == plain["accuracy"]
        assert row(told, name, True)["agreement"] >= 0.97
        assert row(told, name, True)["nbytes"] < 0.5 * row(told, name, False)["nbytes"]


def test_every_file_was_run_in_a_process_of_its_own(told: dict[str, Any]) -> None:
    for found in told["rows"]:
        assert found["seconds"] > 0
        assert found["peak"] > found["before"] > 0
    # onnxruntime needs no torch beside it, ExecuTorch's Python does.
    assert row(told, "onnx", False)["peak"] < row(told, "torch", False)["before"]


def test_what_is_asked_for_is_left_and_nothing_else(told: dict[str, Any], trained: Path) -> None:
    files = {Path(found["file"]) for found in told["rows"] if "file" in found}
    suffixes = ("onnx", "pte", "safetensors")
    assert files == {trained / "export" / f"model.int8.{suffix}" for suffix in suffixes}
    assert {*(trained / "export").iterdir()} == files | {trained / "export" / "model.int8.json"}
    assert all(
        path.stat().st_size == found["nbytes"]
        for found in told["rows"]
        if (path := Path(found.get("file", "/"))) and "file" in found
    )


def test_a_file_runs_with_onnxruntime_and_numpy_alone(told: dict[str, Any], trained: Path, tmp_path: Path) -> None:
    folder = read_folder(trained)
    x = folder.task.data.test.x[:20]
    np.save(tmp_path / "x.npy", x.numpy())
    call = [sys.executable, "-c", _WITHOUT, EXAMPLE, trained / "export" / "model.int8.onnx", tmp_path / "x.npy"]
    without = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    run = subprocess.run(call, capture_output=True, text=True, check=True, env=without)
    answers = [int(line.split()[0]) for line in run.stdout.splitlines()]
    folder.model.eval()
    assert np.mean(np.array(answers) == folder.model(x).argmax(-1).numpy()) >= 0.95


def test_weights_and_configuration_are_the_model(told: dict[str, Any], trained: Path) -> None:
    path = trained / "export" / "model.int8.safetensors"
    configuration = json.loads(path.with_suffix(".json").read_text())
    model = read_folder(trained).model
    assert (configuration["workload"], configuration["model"]) == ("digits", "mlp")
    assert configuration["input"] == {"shape": [1, 8, 8], "dtype": "float32"}
    weights = unpack(load_file(path))
    assert {name: {"shape": [*tensor.shape], "dtype": "float32"} for name, tensor in weights.items()} == configuration[
        "tensors"
    ]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict(weights)
    for name, tensor in model.state_dict().items():
        step = before[name].abs().amax() / 127
        assert float((tensor - before[name]).abs().max()) <= 0.51 * float(step)


def test_int8_that_is_slower_is_told() -> None:
    rows = [{"format": "onnx", "int8": small, "seconds": seconds} for small, seconds in ((False, 2.0), (True, 3.0))]
    assert slower(rows) == ["onnx: int8 is 1.50 times slower than float32 here"]
    assert slower([{**found, "seconds": 1 / found["seconds"]} for found in rows]) == []  # type: ignore[operator]


def test_a_file_that_fails_leaves_none(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise DataError("it does not run")

    monkeypatch.setattr(module, "measure", fail)
    with pytest.raises(DataError, match="it does not run"):
        export_run(trained, ["safetensors"], out=tmp_path / "deep" / "file.safetensors")
    assert [*tmp_path.iterdir()] == []


def test_one_file_has_one_name(trained: Path) -> None:
    with pytest.raises(SettingError, match="--out names one file: got 2 formats"):
        export_run(trained, ["onnx", "safetensors"], out=Path("model"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([".", "--format", "onnx"], "holds no run: result.json and model.safetensors missing"),
        ([".", "--format", "onxx"], "unknown format 'onxx': did you mean 'onnx'?"),
        ([".", "--format", "onnx", "--examples", "0"], "examples is at least 1, got 0"),
        (["."], "Missing option '--format'"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fedpress", "export", *words])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert said in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == []
