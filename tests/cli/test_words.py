"""What the command does with its words: options become settings, mistakes one line and an exit code, and no file."""

import gzip
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import typer

from fedpress.cli.main import app
from fedpress.common.settings import Value
from fedpress.settings import RunSettings
from fedpress.simulations import run as run_module
from fedpress.simulations.bench import engine as bench_module
from fedpress.simulations.settings import resolve
from fedpress.simulations.workloads.fashion import FILES

from .conftest import Call


class Seen(Exception):
    """Raised where the work would begin."""


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[tuple[RunSettings, dict[str, Any]]]:
    """What would have been run, in place of a run."""
    seen: list[tuple[RunSettings, dict[str, Any]]] = []

    def run(settings: dict[str, Value], **options: Any) -> None:
        seen.append((settings, options))
        raise Seen

    monkeypatch.setattr(run_module, "run", run)
    return seen


def example(text: str) -> list[str]:
    """The worked example in a help text, as a shell would split it."""
    found = re.search(r"Example: `?fedpress (.*?)`?\s*$", text, re.MULTILINE | re.DOTALL)
    assert found, text
    return shlex.split(found[1])


@pytest.mark.parametrize("words", [[], ["simulate"], ["keys"], ["bench"], ["bench", "engine"]], ids=" ".join)
def test_every_command_has_help(call: Call, words: list[str]) -> None:
    said = call(*words, "--help")
    assert said.code == 0
    assert "Usage: fedpress" in said.out
    assert "Example: fedpress" in said.out


@pytest.mark.parametrize("command", ["simulate", "compare", "server", "client", "settings", "init", "runs"])
def test_help_fits_a_screen(call: Call, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert len(call(command, "--help").out.splitlines()) <= 50


def test_settings_are_listed(call: Call) -> None:
    listed = json.loads(call("settings", "dirichlet", "--json").out)
    assert [row["setting"] for row in listed] == ["simulation.partition", "simulation.alpha"]
    assert call("settings", "no-such-word").code == 2


def test_init_writes_a_file_that_simulate_takes(call: Call, empty: Path) -> None:
    assert call("init").code == 0
    assert resolve({}, empty / "fedpress.toml") == resolve({})
    assert call("init").code == 2
    assert call("init", "--force").code == 0
    assert call("init", "new/run.toml").code == 0
    assert call("init", "fedpress.toml/run.toml").code == call("init", "new", "--force").code == 2


def test_runs_lists_and_draws_what_is_there(call: Call, empty: Path) -> None:
    folder = empty / "runs" / "one"
    folder.mkdir(parents=True)
    result = {
        "config": resolve({}).to_result(),
        "rounds": [
            {"round": number, "accuracy": number / 4, "uplink_bytes": 9, "downlink_bytes": 90} for number in (1, 2)
        ],
        "final": {"accuracy": 0.5},
        "totals": {"ratio": 9.0},
    }
    (folder / "result.json").write_text(json.dumps(result))
    (row,) = json.loads(call("runs", "--json").out)
    assert (row["name"], row["workload"], row["rounds"], row["accuracy"], row["ratio"]) == (
        "one",
        "digits",
        2,
        0.5,
        9.0,
    )
    assert call("runs", "--plot", "runs.svg").code == 0
    assert "<svg" in Path("runs.svg").read_text(encoding="utf-8")
    for wrong in ("runs.unknown", ".", str(folder / "result.json" / "runs.svg")):
        assert call("runs", "--plot", wrong).code == 2
    assert call("runs", "--plot", "new/runs.svg").code == 0
    assert call("runs", str(empty), "--plot", "runs.svg").code == 1


def test_a_missing_extra_is_named(tmp_path: Path) -> None:
    code = f"""
import sys
sys.modules["matplotlib"] = sys.modules["matplotlib.axes"] = None
sys.argv = ["fedpress", "simulate", "--rounds", "1", "--out", {str(tmp_path / "run")!r}]
from fedpress.cli import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert re.fullmatch(r'fedpress: this needs the package matplotlib\S*: pip install "fedpress\[sim\]"\n', done.stderr)
    assert not (tmp_path / "run").exists()


def test_help_needs_neither_torch_nor_flwr() -> None:
    code = """
import sys
from fedpress.cli import main
sys.argv = ["fedpress", "simulate", "--help"]
try:
    main()
except SystemExit:
    print("heavy:", sorted({"torch", "flwr", "matplotlib"} & set(sys.modules)))
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.endswith("heavy: []\n")


def test_the_example_of_simulate_works(call: Call, begun: list[tuple[RunSettings, dict[str, Any]]]) -> None:
    from fedpress.cli.simulate import simulate

    assert simulate.__doc__
    call(*example(simulate.__doc__))
    ((settings, _),) = begun
    assert settings.simulation.workload == "fashion"
    assert settings.run.out == "runs/first"


def test_the_example_of_bench_works(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    from fedpress.cli.bench import engine

    seen = []

    def measure(**options: Any) -> None:
        seen.append(options)
        raise Seen

    monkeypatch.setattr(bench_module, "bench_engine", measure)
    assert engine.__doc__
    call(*example(engine.__doc__))
    assert len(seen) == 1


def test_every_option_becomes_a_setting(
    call: Call, empty: Path, begun: list[tuple[RunSettings, dict[str, Any]]]
) -> None:
    options: dict[str, Value] = {
        "workload": "fashion",
        "model": "lenet",
        "up": "topk(0.1) | ans",
        "down": "fp16",
        "clients": 23,
        "per-round": 7,
        "rounds": 3,
        "partition": "dirichlet",
        "alpha": 0.7,
        "strategy": "FedAvgM",
        "seed": 11,
        "engine": "ray",
        "workers": 3,
        "device": "cpu",
        "data": str(empty),
        "out": "here",
    }
    more: dict[str, Value] = {"lr": 0.03, "nesterov": True, "momentum": 0.5, "batch-size": 5, "schedule": "cosine"}
    more["strategy.server-momentum"] = 0.9
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    words += [word for key, value in more.items() for word in ("--set", f"{key}={str(value).lower()}")]
    call("simulate", *words, "--fetch", "--force", "--draw-partition")
    ((settings, given),) = begun
    assert settings == resolve({**options, **more, "fetch": True})
    assert (given["force"], given["picture"], given["debug"]) == (True, True, False)


def test_options_win_over_the_file(call: Call, empty: Path, begun: list[tuple[RunSettings, dict[str, Any]]]) -> None:
    (empty / "run.toml").write_text("[server]\nrounds = 3\nup = 'fp16'\n[training]\nlr = 0.5\n")
    call("simulate", "--config", "run.toml", "--rounds", "4", "--set", "lr=0.25")
    ((settings, _),) = begun
    assert (settings.server.rounds, settings.training.lr, settings.server.up) == (4, 0.25, "fp16")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--workload", "digit"], "'digits'"),
        (["--up", "topq(0.1)"], "'topk'"),
        (["--down", "topk(1.5)"], "(0, 1]"),
        (["--strategy", "FedAvgg"], "'FedAvg'"),
        (["--model", "mpl"], "'mpl'"),
        (["--engine", "rey"], "'ray'"),
        (["--rounds", "0"], "rounds"),
        (["--clients", "5", "--per-round", "10"], "per-round"),
        (["--alpha", "0"], "alpha"),
        (["--set", "optimizer=adamm"], "'adam'"),
        (["--set", "lrr=0.1"], "'training.lr'"),
        (["--set", "learning_rate=0.1"], "'training.lr'"),
        (["--set", "batch_size=8"], "'training.batch-size'"),
        (["--set", "training.learning-rate=0.1"], "'training.lr'"),
        (["--epochs", "2"], "--set training.local-epochs="),
        (["--optimizer", "adam"], "--set training.optimizer="),
        (["--num-clients", "3"], "--clients"),
        (["--alpha", "0.3", "--partition", "iid"], "alpha"),
        (["--alpha", "0.5", "--partition", "shards"], "alpha"),
        (["--set", "shards-per-client=3", "--alpha", "0.3"], "alpha"),
        (["--set", "policy.name=budgt"], "policy.name"),
        (["--set", "network.link.down=-1"], "network.link.down"),
        (["--set", "rounds=2", "--set", "server.rounds=3"], "server.rounds"),
        (["--set", "rounds=2", "--set", "rounds=3"], "rounds"),
        (["--rounds", "2", "--set", "rounds=3"], "server.rounds"),
        (["--config", "none.toml"], "none.toml"),
        (["--set", "start=none"], "start"),
        (["--set", "start=."], "start must"),
        (["--data", "none"], "data"),
        (["--resume", "--out", "none"], "out"),
        (["--set", "lr"], "KEY=VALUE"),
        (["--set", "=1"], "KEY=VALUE"),
        (["--set", "lr=[1, 2]"], "a number"),
        (["--clients", "5000"], "5000 clients"),  # fewer examples than that
        (["--partition", "natural"], "natural"),  # nobody owns the examples
        (["--rounds", "many"], "'--rounds'"),
        (["--bogus"], "'--bogus'"),
        (["surplus"], "surplus"),
    ],
    ids=" ".join,
)
def test_a_wrong_call_gets_one_line_and_leaves_nothing(call: Call, empty: Path, words: list[str], named: str) -> None:
    for out in ([], ["--out", "here"]):
        said = call("simulate", *words, *out)
        assert said.code == 2
        assert said.out == ""
        assert said.err.startswith("fedpress: ")
        assert said.err.count("\n") == 1
        assert named in said.err
        assert not list(empty.iterdir())


def test_an_unknown_command_gets_one_line(call: Call) -> None:
    said = call("simulat")
    assert said.code == 2
    assert said.err.count("\n") == 1
    assert "'simulate'" in said.err


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_file_cut_short_gets_one_line_and_leaves_nothing(call: Call, empty: Path, suffix: str) -> None:
    data = empty / "data"
    data.mkdir()
    whole = b"\0\0\x08\x01" + (100).to_bytes(4, "big") + bytes(100)
    for name in FILES:
        (data / (name + suffix)).write_bytes((gzip.compress(whole) if suffix else whole)[:-9])
    said = call("simulate", "--workload", "fashion", "--data", "data", "--out", "here")
    assert said.code == 1
    assert said.err.startswith(f"fedpress: {data}/")
    assert said.err.count("\n") == 1
    assert [path.name for path in empty.iterdir()] == ["data"]


@pytest.mark.parametrize(
    "words",
    [
        "compare --codecs none.toml",
        "compare --app none",
        "compare --set seed=1",
        "compare --set server.down=fp16",
        "compare --set workload=digits",
        "compare --set lr=0.1 --set training.lr=0.2",
        "server --config none.toml",
        "server --keys none",
        "client --config none.toml none.enrol",
        "client none.enrol",
        "doctor none.enrol",
        "doctor --keys none",
        "export none --format onnx",
        "shrink none --prune 0.5",
        "distil none --model mlp",
        "inspect none.fp",
        "runs none",
        "bench codec --updates none",
    ],
)
@pytest.mark.parametrize("debug", [False, True])
def test_a_wrong_call_of_any_command_gets_one_line_and_leaves_nothing(
    call: Call, empty: Path, words: str, debug: bool
) -> None:
    said = call(*words.split(), *(["--debug"] if debug else []))
    assert said.code == 2
    assert said.err.splitlines()[-1].startswith("fedpress: ")
    assert debug or said.err.count("\n") == 1
    assert not list(empty.iterdir())


def test_clients_alone_do_not_conflict_with_the_workload(
    call: Call, begun: list[tuple[RunSettings, dict[str, Any]]]
) -> None:
    call("simulate", "--clients", "5")
    ((settings, _),) = begun
    assert settings.server.per_round <= settings.clients == 5


def test_a_partition_replaces_the_parameter_of_another_one(
    call: Call, empty: Path, begun: list[tuple[RunSettings, dict[str, Any]]]
) -> None:
    (empty / "run.toml").write_text("[simulation]\nworkload = 'fashion'\nalpha = 0.1\n")
    call("simulate", "--config", "run.toml")
    call("simulate", "--config", "run.toml", "--partition", "iid")
    assert [settings.simulation.partition for settings, _ in begun] == ["dirichlet", "iid"]


def test_paths_are_absolute(call: Call, empty: Path, begun: list[tuple[RunSettings, dict[str, Any]]]) -> None:
    (empty / "here").mkdir()
    (empty / "run.toml").write_text('[simulation]\nstart = "here"\n')
    words = ["--set", "source=folder:here", "--set", "link=trace:here/link.csv", "--data", "here"]
    (empty / "here" / "link.csv").write_text("seconds,down,up\n0,1e6,1e6\n10,1e6,1e6\n")
    call("simulate", *words, "--config", "run.toml")
    ((settings, _),) = begun
    flat = settings.to_config()
    assert flat["simulation.start"] == flat["simulation.data"] == str(empty / "here")
    assert flat["distillation.source"] == f"folder:{empty / 'here'}"
    assert flat["network.link.name"] == f"trace:{empty / 'here' / 'link.csv'}"


def test_a_run_is_never_overwritten_unasked(call: Call, empty: Path) -> None:
    (empty / "here").mkdir()
    (empty / "here" / "result.json").write_text("precious")
    said = call("simulate", "--rounds", "1", "--out", "here")
    assert said.code == 2
    assert "--force" in said.err
    assert said.err.count("\n") == 1
    assert [path.name for path in (empty / "here").iterdir()] == ["result.json"]
    assert (empty / "here" / "result.json").read_text() == "precious"


def test_an_unforeseen_error_gets_one_line_and_debug_its_traceback(
    call: Call, begun: list[tuple[RunSettings, dict[str, Any]]]
) -> None:
    said = call("simulate")
    assert said.code == 1
    assert said.err == "fedpress: Seen:  (--debug shows where)\n"
    shown = call("simulate", "--debug")
    assert shown.code == 1
    assert "Traceback" in shown.err
    assert len(begun) == 2


def test_every_command_takes_debug_and_shows_an_example() -> None:
    def leaves(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
        if isinstance(command, click.Group):
            for part, below in command.commands.items():
                yield from leaves(f"{name} {part}", below)
        else:
            yield name, command

    for name, command in leaves("fedpress", typer.main.get_command(app)):
        assert any("--debug" in option.opts for option in command.params), name
        assert f"Example: `{name}" in (command.help or ""), name


INTERRUPTED = """
import sys

class Interrupts:
    def find_spec(self, name, *_):
        if name == "fedpress.cli.keys":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupts())
import fedpress.cli
"""


def test_ctrl_c_while_the_commands_are_imported_is_one_line() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert len(done.stderr.splitlines()) == 1
