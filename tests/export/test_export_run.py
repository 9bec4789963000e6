"""A run's folder becomes files that give its answers, and run where neither torch nor fedpress is."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fedpress.cli import main
from fedpress.common.errors import DataError, FolderInUseError, SettingError
from fedpress.common.files import locked
from fedpress.compression.model.distill.settings import StudentSettings
from fedpress.compression.model.export import ExportMeasurement
from fedpress.compression.model.quantization import unpack
from fedpress.compression.model.settings import ShrinkSettings
from fedpress.simulations.postprocess import export as module
from fedpress.simulations.postprocess.distill import distil_run
from fedpress.simulations.postprocess.export import export_run, slower
from fedpress.simulations.postprocess.run_folder import read_folder
from fedpress.simulations.postprocess.shrink import shrink
from fedpress.simulations.settings import resolve
from fedpress.simulations.workloads import WORKLOADS, task
from fedpress.simulations.workloads.digits import Digits

EXAMPLE = Path(__file__).parents[2] / "examples" / "onnxruntime" / "run.py"
EVERY = ("onnx", "executorch", "safetensors")
# Only after this are packages looked for: what stands for None cannot be imported.
_WITHOUT = """
import runpy, sys
sys.modules["torch"] = sys.modules["fedpress"] = sys.modules["onnx"] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


MADE: dict[str, Callable[[Path, Path], object]] = {
    "export": lambda run, out: export_run(run, ["safetensors"], out=out / "model.safetensors", examples=10),
    "shrink": lambda run, out: shrink(run, out, ShrinkSettings(prune=0.5, tune=0)),
    "distil": lambda run, out: distil_run(run, "mlp", out, StudentSettings(epochs=1)),
}


@pytest.mark.parametrize("command", MADE)
def test_two_commands_cannot_write_to_one_folder(command: str, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with locked(out), pytest.raises(FolderInUseError, match=str(out)):
        MADE[command](trained, out)
    assert not list(out.iterdir())
    MADE[command](trained, out)
    assert list(out.iterdir())


@pytest.fixture(scope="module")
def told(trained: Path) -> dict[str, Any]:
    """All formats of it, both ways."""
    for package in ("onnx", "onnxscript", "onnxruntime", "executorch", "torchao"):
        pytest.importorskip(package)
    return export_run(trained, EVERY, int8=True, examples=100)


def row(told: dict[str, Any], format: str, int8: bool) -> dict[str, Any]:
    (found,) = (row for row in told["rows"] if (row["format"], row["int8"]) == (format, int8))
    return found  # type: ignore[no-any-return]


@pytest.mark.slow
def test_float32_gives_torch_s_answers_and_int8_nearly(told: dict[str, Any]) -> None:
    plain = row(told, "torch", False)
    for name in EVERY:
        assert row(told, name, False)["agreement"] == 1.0
        assert row(told, name, False)["accuracy"] == plain["accuracy"]
        assert row(told, name, True)["agreement"] >= 0.97
        assert row(told, name, True)["nbytes"] < 0.5 * row(told, name, False)["nbytes"]


@pytest.mark.slow
def test_every_file_was_run_in_a_process_of_its_own(told: dict[str, Any]) -> None:
    for found in told["rows"]:
        assert found["seconds"] > 0
        assert found["peak"] > found["before"] > 0
    # onnxruntime does not need torch, ExecuTorch's Python does.
    assert row(told, "onnx", False)["peak"] < row(told, "torch", False)["before"]


@pytest.mark.slow
def test_export_writes_the_requested_files_only(told: dict[str, Any], trained: Path) -> None:
    files = {Path(found["file"]) for found in told["rows"] if "file" in found}
    names = [f"model{small}" for small in ("", ".int8")]
    suffixes = ("onnx", "pte", "safetensors")
    assert files == {trained / "export" / f"{name}.{suffix}" for name in names for suffix in suffixes}
    assert {*(trained / "export").iterdir()} == files | {trained / "export" / f"{name}.json" for name in names}
    assert all(
        path.stat().st_size == found["nbytes"]
        for found in told["rows"]
        if (path := Path(found.get("file", "/"))) and "file" in found
    )


@pytest.mark.slow
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


@pytest.mark.slow
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


def test_slower_int8_is_reported() -> None:
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
    with pytest.raises(SettingError, match="--out must be given with one format, got 2"):
        export_run(trained, ["onnx", "safetensors"], out=Path("model"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([".", "--format", "onnx"], "holds no run: result.json and model.safetensors missing"),
        ([".", "--format", "onxx"], "unknown format 'onxx': did you mean 'onnx'?"),
        ([".", "--format", "onnx", "--examples", "0"], "examples must be at least 1, got 0"),
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


class Undecided(nn.Module):
    """What it does hangs on what it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.out(x.flatten(1))
        return scores * 2 if float(scores.sum()) > 0 else scores


@dataclass(frozen=True)
class Undecidable(Digits):
    """digits, with that model."""

    models: ClassVar[Mapping[str, Callable[[float], nn.Module]]] = {"undecided": lambda _: Undecided()}


@pytest.fixture
def undecided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(WORKLOADS, "undecided", Undecidable())
    settings = resolve({"workload": "undecided", "clients": 3, "per-round": 3})
    (tmp_path / "result.json").write_text(json.dumps({"schema": 1, "config": settings.to_result(), "rounds": []}))
    save_file(task(settings).model().state_dict(), tmp_path / "model.safetensors")
    return tmp_path


def test_weights_need_no_graph(
    undecided: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["fedpress", "export", str(undecided), "--format", "safetensors", "--int8"])
    with pytest.raises(SystemExit) as end:
        main()
    said = capfd.readouterr()
    assert not end.value.code, said.err
    assert "def forward" not in said.out + said.err
    rows = export_run(undecided, ["safetensors"], force=True)["rows"]
    assert [(found["format"], found["agreement"], found["seconds"]) for found in rows] == [("safetensors", 1.0, None)]


def test_a_model_that_is_no_graph_is_one_line(
    undecided: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxscript")
    monkeypatch.setattr(sys, "argv", ["fedpress", "export", str(undecided), "--format", "onnx", "--json"])
    with pytest.raises(SystemExit) as end:
        main()
    said = capfd.readouterr()
    assert end.value.code == 2
    assert said.err.startswith("fedpress: the model cannot be exported as onnx: Could not guard on data-dependent")
    assert (said.err.count("\n"), said.out) == (1, "")


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("model.safetensors", "is a file of the run"),
        ("result.onnx", "result.json is a file of the run"),
        ("weights.json", "is the name of the description"),
        ("there", "there exists: name another file, or overwrite it with --force"),
        ("checkpoint", "is a folder"),
        ("there/deeper/model", "there is a file"),
    ],
)
def test_nothing_is_overwritten_without_force(
    trained: Path, monkeypatch: pytest.MonkeyPatch, out: str, said: str
) -> None:
    monkeypatch.setattr(module, "read_folder", lambda _: pytest.fail("it is said before any work"))
    (trained / "there").write_text("precious")
    before = {path: path.read_bytes() for path in trained.iterdir() if path.is_file()}
    with pytest.raises(SettingError, match=said):
        export_run(trained, ["safetensors"], out=trained / out, force=out != "there")
    assert {path: path.read_bytes() for path in trained.iterdir() if path.is_file()} == before


def test_scores_that_are_not_finite_differ_from_torch_s(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = ExportMeasurement(1, 1.0, 1.0, float("nan"), 1.0, 2, 1)
    monkeypatch.setattr(module, "measure", lambda *_: found)
    for int8 in (False, True):
        with pytest.raises(DataError, match="differs from torch"):
            export_run(trained, ["safetensors"], int8=int8, out=tmp_path / "model.safetensors")
