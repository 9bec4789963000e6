"""`fedpress distil`: a run's model is the teacher, and other commands accept the student's folder."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from fedpress.cli import main
from fedpress.common.errors import SettingError
from fedpress.compression.model.distill.settings import StudentSettings
from fedpress.compression.model.settings import ShrinkSettings
from fedpress.simulations.postprocess.distill import distil_run
from fedpress.simulations.postprocess.export import export_run
from fedpress.simulations.postprocess.run_folder import read_folder
from fedpress.simulations.postprocess.shrink import shrink
from fedpress.simulations.run import run
from fedpress.simulations.settings import resolve


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher") / "run"
    run(resolve({"clients": 10, "per-round": 5, "rounds": 5, "workers": 1, "out": str(folder)}))
    return folder


def test_a_student_has_a_folder_like_a_run_s(teacher: Path, tmp_path: Path) -> None:
    result = distil_run(teacher, "mlp", tmp_path / "student", StudentSettings(epochs=60, shift=1), seed=4)
    assert (result["schema"], result["config"]["model"], result["config"]["seed"]) == (1, "mlp", 4)
    assert result["final"]["accuracy"] > 0.9
    assert set(result["student"]["held_out"]) == {"student", "teacher"}
    assert result.items() <= read_folder(tmp_path / "student").result.items()
    assert sorted(path.name for path in (tmp_path / "student").iterdir()) == ["model.safetensors", "result.json"]
    (row,) = (row for row in export_run(tmp_path / "student", ["safetensors"])["rows"] if row["format"] != "torch")
    assert row["agreement"] == 1.0
    # What is held out is the same for every student.
    again = distil_run(teacher, "mlp", tmp_path / "again", StudentSettings(epochs=1), seed=5)
    assert again["student"]["held_out"]["teacher"] == result["student"]["held_out"]["teacher"]
    assert again["student"]["examples"] == result["student"]["examples"] < len(read_folder(teacher).task.data.train)


def test_a_student_is_trained_on_a_folder_s_inputs_without_targets(teacher: Path, tmp_path: Path) -> None:
    import numpy as np

    x = read_folder(teacher).task.data.train.x[:300].numpy()
    (tmp_path / "proxy").mkdir()
    np.savez(tmp_path / "proxy" / "x.npz", x=x)
    on = f"folder:{tmp_path / 'proxy'}"
    result = distil_run(teacher, "mlp", tmp_path / "student", StudentSettings(epochs=150, alpha=1.0), on=on)
    assert result["student"]["examples"] == 300
    assert result["final"]["accuracy"] > 0.85
    with pytest.raises(SettingError, match=r"alpha must be 1 for examples without targets, got 0\.9"):
        distil_run(teacher, "mlp", tmp_path / "other", StudentSettings(), on=on)
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_the_student_of_a_run_that_began_with_a_smaller_model_is_the_workload_s_own(
    teacher: Path, tmp_path: Path
) -> None:
    wanted = ShrinkSettings(factorise="svd", energy=0.5, share=16)
    shrink(teacher, tmp_path / "small", wanted)
    small = str(tmp_path / "small")
    config = {"clients": 4, "per-round": 2, "rounds": 1, "workers": 1, "start": small, "out": str(tmp_path / "on")}
    run(resolve(config))
    shutil.rmtree(small)  # what comes after needs it no more
    assert export_run(tmp_path / "on", ["safetensors"])["rows"][-1]["agreement"] == 1.0
    told = json.loads((tmp_path / "on" / "export" / "model.json").read_text())
    assert [step["kind"] for step in told["plan"]["steps"]] == ["factorise", "share"]
    result = distil_run(tmp_path / "on", "mlp", tmp_path / "student", StudentSettings(epochs=1))
    assert result["config"]["simulation.start"] == ""
    found, whole = (dict(read_folder(path).model.named_parameters()) for path in (tmp_path / "student", teacher))
    assert {name: value.shape for name, value in found.items()} == {n: value.shape for n, value in whole.items()}


def test_overwriting_removes_the_old_files(teacher: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shrink(teacher, out, ShrinkSettings(share=16))
    export_run(out, ["safetensors"])
    (out / "notes.txt").write_text("mine")
    distil_run(teacher, "mlp", out, StudentSettings(epochs=1), force=True)
    assert sorted(path.name for path in out.iterdir()) == ["model.safetensors", "notes.txt", "result.json"]
    read_folder(out)
    shrink(teacher, out, ShrinkSettings(share=16), force=True)
    config = {"clients": 4, "per-round": 2, "rounds": 1, "workers": 1, "out": str(out)}
    run(resolve(config), force=True)
    assert not {"plan.json", "report.json"} & {path.name for path in out.iterdir()}
    read_folder(out)
    (out / "result.json").unlink()
    with pytest.raises(SettingError, match="holds a run already"):
        distil_run(teacher, "mlp", out, StudentSettings(epochs=1))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model", "cnn"], "unknown model 'cnn'"),
        (["--model", "mlp", "--on", "proxy"], "held no examples back for distillation"),
        (["--model", "mlp", "--on", "air"], "on must be train, proxy, mnist or folder:PATH, got 'air'"),
        (["--model", "mlp", "--holdout", "1"], "holdout must be in [0, 1), got 1.0"),
        (["--model", "mlp", "--out", "."], "holds a run already"),
        (["--model", "mlp", "--out", "TEACHER"], "out must be another folder"),
        (["--model", "mlp", "--epochs", "0"], "epochs must be at least 1, got 0"),
        (["--model", "a/b"], "unknown model 'a/b'"),
        (["--model", "mlp", "--out", "result.json"], "result.json is a file"),
        (["--model", "mlp", "--out", "result.json/deeper"], "result.json is a file"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str],
    said: str,
    teacher: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "result.json").write_text("{}")
    words = [str(teacher) if word == "TEACHER" else word for word in words]
    monkeypatch.setattr(sys, "argv", ["fedpress", "distil", str(teacher), *words])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]
