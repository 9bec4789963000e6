"""`fedpress shrink`: a folder that holds a smaller model, whole and usable; and one line for whatever cannot be."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fedpress.client.training.loop import evaluate, train
from fedpress.compression.model import report
from fedpress.compression.model.distill.score_matching import ScoreMatching
from fedpress.simulations.postprocess import shrink as module
from fedpress.simulations.postprocess.run_folder import read_folder
from fedpress.simulations.settings import resolve
from fedpress.simulations.workloads import task

from .conftest import Call, start

EVERYTHING = ("--prune", "0.5", "--by", "taylor", "--factorise", "svd", "--energy", "0.8")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run, with a model that has learnt something."""
    folder = tmp_path_factory.mktemp("run")
    config = resolve({"workload": "digits", "clients": 3, "per-round": 3})
    work = task(config)
    model = work.model()
    train(model, work.examples(0), config.training, round=1, rounds=1, seed=0, partition=0, device="cpu")
    save_file(model.state_dict(), folder / "model.safetensors")
    (folder / "result.json").write_text(json.dumps({"schema": 1, "config": config.to_result(), "rounds": []}))
    return folder


def scores(folder: Path, x: Tensor) -> Tensor:
    with torch.no_grad():
        said: Tensor = read_folder(folder).model.eval()(x)
    return said


def test_what_comes_out_is_whole(call: Call, empty: Path, run: Path) -> None:
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    said = call("shrink", str(run), *EVERYTHING, "--tune", "20", "--out", "small")
    assert said.code == 0, said.err
    assert {path.name for path in (empty / "small").iterdir()} == {
        "result.json",
        "model.safetensors",
        "plan.json",
        "report.json",
    }
    result, told = (json.loads((empty / "small" / f"{name}.json").read_text()) for name in ("result", "report"))
    folder = read_folder(empty / "small")
    measured = evaluate(folder.model, folder.task.data.test, "cpu")
    assert result["schema"] == 1
    assert result["config"]["workload"] == "digits"
    assert result["final"] == pytest.approx({name: measured[name] for name in ("accuracy", "loss")})
    assert told["test"]["after"]["accuracy"] == pytest.approx(measured["accuracy"])
    assert told["after"]["parameters"] == report.parameters(folder.model) < told["before"]["parameters"]
    assert told["after"]["bytes"] == (empty / "small" / "model.safetensors").stat().st_size < told["before"]["bytes"]
    assert [step["step"] for step in told["steps"]] == ["prune", "factorise"]
    assert all(step["test"].keys() == {"before", "untuned", "tuned"} for step in told["steps"])
    assert {row["layer"] for row in told["layers"]} == {"1", "4"}
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before
    assert "accuracy" in said.err  # progress
    assert "parameters" in said.out


def test_every_step_together_and_one_after_another(call: Call, empty: Path, run: Path) -> None:
    assert call("shrink", str(run), *EVERYTHING, "--share", "8", "--out", "one", "--json").code == 0
    kinds = [step["step"] for step in json.loads((empty / "one" / "report.json").read_text())["steps"]]
    assert kinds == ["prune", "factorise", "share"]
    assert call("shrink", str(run), *EVERYTHING[:4], "--out", "one", "--force", "--json").code == 0
    said = call("shrink", "one", "--share", "8", "--tune", "5", "--out", "two", "--force", "--json")
    assert said.code == 0, said.err
    assert said.err == ""
    assert json.loads(said.out) == json.loads((empty / "two" / "report.json").read_text())
    steps = [step["kind"] for step in json.loads((empty / "two" / "plan.json").read_text())["steps"]]
    assert steps == ["prune", "share"]
    small = read_folder(empty / "two").model
    assert all(len(weight.unique()) <= 8 for name, weight in small.named_parameters() if name.endswith("original"))


def test_the_same_call_makes_the_same_bits(call: Call, empty: Path, run: Path) -> None:
    for out in ("one", "two"):
        assert call("shrink", str(run), *EVERYTHING[:6], "--share", "8", "--tune", "10", "--out", out).code == 0
    for name in ("model.safetensors", "plan.json"):
        assert (empty / "one" / name).read_bytes() == (empty / "two" / name).read_bytes()


def test_a_smaller_model_goes_on_being_federated(call: Call, empty: Path, run: Path) -> None:
    assert call("shrink", str(run), *EVERYTHING, "--share", "8", "--out", "small").code == 0
    words = (
        "--clients",
        "4",
        "--per-round",
        "2",
        "--rounds",
        "1",
        "--workers",
        "1",
        "--set",
        "start=small",
        "--out",
        "on",
    )
    for more in ((), ("--resume",)):
        process = start("simulate", *words, *more, folder=empty)
        _, error = process.communicate()
        assert process.returncode == 0, error
    before, after = (load_file(empty / folder / "model.safetensors") for folder in ("small", "on"))
    assert {name: tensor.shape for name, tensor in after.items()} == {n: tensor.shape for n, tensor in before.items()}
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert changed
    assert not any(name.endswith("packed") for name in changed)
    told = call("shrink", "on", "--prune", "0.5", "--out", "less")  # of layers that share none can be removed
    assert told.code == 2
    read_folder(empty / "on")


@pytest.mark.parametrize("folder", ["none", "wrong"])
def test_a_start_that_is_none_gets_one_line(call: Call, empty: Path, run: Path, folder: str) -> None:
    (empty / "wrong").mkdir()
    save_file({"0.weight": torch.zeros(3)}, empty / "wrong" / "model.safetensors")
    ended = call("simulate", "--set", f"start={folder}", "--out", "here")
    assert ended.code == (2 if folder == "none" else 1)
    assert folder in ended.err
    assert ended.err.count("\n") == 1
    assert not (empty / "here").exists()


def test_tuning_brings_it_nearer_to_the_model_it_comes_from(call: Call, empty: Path, run: Path) -> None:
    x = read_folder(run).task.data.train.x[:500]
    wanted, apart = scores(run, x).softmax(1), []
    for steps in ("0", "200"):
        assert call("shrink", str(run), "--prune", "0.8", "--tune", steps, "--out", "small", "--force").code == 0
        apart.append(float((scores(empty / "small", x).softmax(1) - wanted).abs().mean()))
    assert apart[1] < apart[0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--prune"),
        (["--prune", "1.0"], "got 1.0"),
        (["--prune", "-0.5"], "got -0.5"),
        (["--prune", "0.001"], "got 0.001"),
        (["--prune", "0.5", "--by", "l2"], "'l2'"),
        (["--factorise", "qr"], "'qr'"),
        (["--factorise", "svd", "--energy", "0"], "energy"),
        (["--share", "1"], "got 1"),
        (["--share", "300"], "got 300"),
        (["--prune", "0.5", "--tune", "-1"], "tune"),
        (["--prune", "0.5", "--device", "gpu"], "'gpu'"),
        (["--prune", "many"], "--prune"),
    ],
    ids=" ".join,
)
def test_a_wrong_call_gets_one_line_and_leaves_nothing(
    call: Call, empty: Path, run: Path, words: list[str], said: str
) -> None:
    ended = call("shrink", str(run), *words, "--out", "small", "--json")
    assert ended.code == 2
    assert said in ended.err
    assert ended.err.count("\n") == 1
    assert not list(empty.iterdir())


def test_a_folder_without_a_run_gets_one_line(call: Call, empty: Path, run: Path) -> None:
    (empty / "other").mkdir()
    for folder in ("other", "none"):
        ended = call("shrink", folder, "--prune", "0.5")
        assert ended.code == 2
        assert folder in ended.err
        assert ended.err.count("\n") == 1


def test_nothing_is_overwritten_without_force(call: Call, empty: Path, run: Path) -> None:
    (empty / "small").mkdir()
    (empty / "small" / "result.json").write_text("precious")
    ended = call("shrink", str(run), "--prune", "0.5", "--out", "small")
    assert ended.code == 2
    assert "--force" in ended.err
    assert (empty / "small" / "result.json").read_text() == "precious"
    ended = call("shrink", str(run), "--prune", "0.5", "--out", str(run), "--force")
    assert ended.code == 2
    assert "another folder" in ended.err


@pytest.mark.parametrize(
    "fault",
    [
        *("json", "schema", "settings", "weights", "other model", "nan"),
        *("plan", "plan of another", "plan that does not fit", "plan without answers", "places"),
    ],
)
def test_what_does_not_fit_together_gets_one_line(call: Call, empty: Path, run: Path, fault: str) -> None:
    folder = empty / "broken"
    shutil.copytree(run, folder)
    model, result, plan = folder / "model.safetensors", folder / "result.json", folder / "plan.json"
    weights = load_file(model)
    match fault:
        case "json":
            result.write_text("{")
        case "schema":
            result.write_text('{"schema": 7}')
        case "settings":
            result.write_text('{"schema": 1, "config": {"workload": "digits"}}')
        case "weights":
            model.write_bytes(model.read_bytes()[:-100])
        case "other model":
            save_file({name: tensor[:5].clone() for name, tensor in weights.items()}, model)
        case "nan":
            save_file({**weights, "1.bias": weights["1.bias"] * float("nan")}, model)
        case "plan":
            plan.write_text("[]")
        case "plan that does not fit":  # each layer by itself has what its weights say
            plan.write_text('{"schema": 1, "steps": [{"kind": "prune", "layers": {"1": {"out": [0], "in": null}}}]}')
            save_file({**weights, **{name: weights[name][:1].clone() for name in ("1.weight", "1.bias")}}, model)
        case "plan without answers":
            plan.write_text('{"schema": 1, "steps": [{"kind": "prune", "layers": {"4": {"out": [0], "in": null}}}]}')
            save_file({**weights, **{name: weights[name][:1].clone() for name in ("4.weight", "4.bias")}}, model)
        case "places":
            shutil.rmtree(folder)
            assert call("shrink", str(run), "--share", "3", "--out", "broken").code == 0
            weights = load_file(model)
            packed = "1.parametrizations.weight.0.packed"
            save_file({**weights, packed: torch.full_like(weights[packed], 255)}, model)
        case _:
            plan.write_text('{"schema": 1, "steps": [{"kind": "share", "layers": {"17": {"clusters": 4}}}]}')
    ended = call("shrink", "broken", "--prune", "0.5", "--out", "small")
    assert ended.code == 1
    assert ended.err.startswith("fedpress: ")
    assert "broken" in ended.err
    assert ended.err.count("\n") == 1
    assert not (empty / "small").exists()


def test_without_the_extra_the_line_says_how_to_get_it(
    call: Call, empty: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    ended = call("shrink", str(run), "--prune", "0.5", "--out", "small", "--json")
    assert ended.code == 2
    assert 'pip install "fedpress[shrink]"' in ended.err
    assert call("shrink", str(run), "--share", "16", "--out", "small").code == 0  # which needs no graph


@pytest.mark.parametrize("words", [("--prune", "0.5"), ("--factorise", "svd"), ("--share", "8")])
def test_what_shares_weights_already_is_not_changed_otherwise(
    call: Call, empty: Path, run: Path, words: tuple[str, str]
) -> None:
    assert call("shrink", str(run), "--share", "16", "--out", "shared").code == 0
    ended = call("shrink", "shared", *words, "--out", "small", "--json")
    assert ended.code == 2
    assert "weights of this model are shared, which must be the last step" in ended.err
    assert ended.err.count("\n") == 1


def test_a_folder_is_named_by_its_whole_path(
    call: Call, empty: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(run, empty / "here" / "run")
    monkeypatch.chdir(empty / "here" / "run")
    ended = call("shrink", ".", "--share", "16", "--json")
    assert ended.code == 0, ended.err
    read_folder(empty / "here" / "run-small")


def test_a_place_that_is_none_is_said_before_the_work(call: Call, empty: Path, run: Path) -> None:
    (empty / "file").write_text("precious")
    for out in ("file", "file/deeper"):
        ended = call("shrink", str(run), "--share", "16", "--out", out)
        assert ended.code == 2
        assert (ended.err.count("\n"), "file is a file" in ended.err) == (1, True), ended.err


def test_tuning_that_ends_in_no_numbers_writes_none(
    call: Call, empty: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ScoreMatching", lambda **given: ScoreMatching(**given, lr=1e30))
    ended = call("shrink", str(run), "--share", "16", "--tune", "5", "--out", "small", "--json")
    assert (ended.code, ended.err) == (1, "fedpress: tuning at lr 1e+30 left weights that are not finite\n")
    assert not (empty / "small").exists()


def test_a_folder_is_read_with_the_base_install_alone(run: Path) -> None:
    code = f"""
import sys
extras = ("sklearn", "matplotlib", "jinja2", "threadpoolctl", "ray", "seglearn", "onnx", "torch_pruning")
sys.modules |= dict.fromkeys(extras)
from fedpress.cli import main
import fedpress.simulations.postprocess.shrink, fedpress.simulations.postprocess.export
import fedpress.simulations.postprocess.distill
sys.argv = ["fedpress", "shrink", {str(run)!r}, "--share", "16", "--out", "nowhere"]
main()
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert said.stderr == "fedpress: the digits come with scikit-learn: pip install 'fedpress[sim]'\n"
    assert said.returncode == 1


def test_help_needs_no_torch() -> None:
    code = """
import sys
from fedpress.cli import main
sys.argv = ["fedpress", "shrink", "--help"]
try:
    main()
except SystemExit:
    print("heavy:", sorted({"torch", "flwr", "torch_pruning"} & set(sys.modules)))
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.endswith("heavy: []\n")
