"""Stages, presets, workloads, models and strategies of another package take part as fedpress's own do."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
Run = Callable[..., subprocess.CompletedProcess[str]]

BY_NAME = {
    "workload": "streets",
    "up": "grid(0.001) | ans",
    "down": "grid(0.001) | ans",
    "strategy": "damped",
}
BY_REFERENCE = {
    "workload": "acme.streets:Streets",
    "model": "acme.streets:wide",
    "up": "acme.codecs:sparse_grid(0.5)",
    "down": "acme.codecs:Grid(0.001) | ans",
    "strategy": "acme.strategies:Damped",
}


def simulate(run: Run, folder: Path, settings: dict[str, str], *words: str) -> dict[str, Any]:
    options = [word for name, value in settings.items() for word in (f"--{name}", value)]
    done = run("-m", "fedpress", "simulate", *options, *words, "--out", folder)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads((folder / "result.json").read_bytes())
    assert sum(line["failures"] for line in result["rounds"]) == 0
    assert result["final"]["accuracy"] > 0.7
    return result


@pytest.mark.parametrize("settings", [BY_NAME, BY_REFERENCE], ids=["by-name", "by-reference"])
def test_a_run_uses_what_another_package_has(settings: dict[str, str], run: Run, tmp_path: Path) -> None:
    result = simulate(run, tmp_path / "run", settings, "--workers", "2", "--set", "strategy.way=0.75")
    config = result["config"]
    assert {name: config[name] for name in ("up", "workload")} == {name: settings[name] for name in ("up", "workload")}
    assert config["strategy.way"] == 0.75
    assert result["totals"]["uplink_bytes"] > 0


@pytest.mark.slow
def test_engines_agree_on_what_another_package_does(run: Run, tmp_path: Path) -> None:
    simulate(run, tmp_path / "here", BY_REFERENCE, "--workers", "1")
    simulate(run, tmp_path / "ray", BY_REFERENCE, "--workers", "1", "--engine", "ray")
    here, ray = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("here", "ray"))
    assert here == ray


@pytest.mark.slow
def test_the_way_of_the_strategy_changes_the_model(run: Run, tmp_path: Path) -> None:
    models = []
    for way in ("0.5", "1.0"):
        simulate(run, tmp_path / way, BY_NAME, "--workers", "1", "--set", f"strategy.way={way}")
        models.append((tmp_path / way / "model.safetensors").read_bytes())
    assert models[0] != models[1]


WRONG = {  # with what the line says
    "--workload=acme.streets:Nowhere": "Nowhere",
    "--workload=street": "'streets'",
    "--model=acme.streets:Streets": "torch.nn.Module",
    "--up=acme.codecs:Mesh(1) | ans": "Mesh",
    "--up=grid(2) | ans": "got 2",
    "--up=acme.streets:Streets | ans": "Streets",
    "--strategy=acme.streets:Streets": "Streets",
    "--strategy=damping": "'damped'",
    "--set=strategy.wey=1": "strategy.wey",
    "--workload=acme.nowhere:Any": "acme.nowhere",
    "--workload=../acme:Any": "../acme",
}
FAILS = {  # the same, of code that raises
    "--strategy=acme_leaves:Any": "SystemExit",
    "--up=acme_leaves:Any | ans": "SystemExit",
    "--workload=acme_imports:Any": "not_installed",
    "--strategy=acme_fails:Fails": "RuntimeError",
    "--workload=acme_fails:Workload": "LookupError",
    "--model=acme_fails:model": "TypeError",
}


CALLS = """
import io, json, sys
from contextlib import redirect_stderr
from fedpress.cli import main

found = []
for words in json.loads(sys.argv[1]):
    sys.argv = ["fedpress", "simulate", *words]
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            main()
    except SystemExit as end:
        found.append((end.code, said.getvalue()))
print(json.dumps(found))
"""


def test_what_cannot_be_used_is_one_line_before_the_first_round(run: Run, tmp_path: Path) -> None:
    base = {**BY_NAME, "strategy": "FedAvg"}
    calls = []
    for option in [*WRONG, *FAILS]:
        name, _, value = option.partition("=")
        given = {**{f"--{key}": text for key, text in base.items()}, name: value}
        if "strategy." in value:
            given["--strategy"] = "damped"
        calls.append([*(word for pair in given.items() for word in pair), "--out", str(tmp_path / "run")])
    (tmp_path / "acme_leaves.py").write_text("raise SystemExit(3)")
    (tmp_path / "acme_fails.py").write_text("""
def Fails(**given): raise RuntimeError(given)
def model(): raise TypeError("of the model")
class Workload:
    def __init__(self): raise LookupError("of the workload")
""")
    (tmp_path / "acme_imports.py").write_text("import not_installed")
    done = run("-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r})" + CALLS, json.dumps(calls))
    assert done.returncode == 0, done.stderr
    expected = [*((2, part) for part in WRONG.values()), *((1, part) for part in FAILS.values())]
    for (code, said), (right, part) in zip(json.loads(done.stdout), expected, strict=True):
        assert code == right, said
        assert part in said
        assert len(said.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_what_a_run_folder_has_imported_is_named_before(run: Run, tmp_path: Path) -> None:
    simulate(run, tmp_path / "run", BY_REFERENCE, "--rounds", "3")
    done = run("-m", "fedpress", "export", tmp_path / "run", "--format", "safetensors", installed=False)
    assert done.returncode == 2
    warning, error = done.stderr.splitlines()[-2:]
    for name in ("acme.streets:Streets", "acme.streets:wide"):
        assert name in warning
    assert "acme.streets:Streets" in error


FRAME = """
import sys
import numpy as np
import fedpress

update = {"w": np.linspace(-1, 1, 50, dtype=np.float32)}
layout = fedpress.Layout.of(update)
codec = fedpress.codec(sys.argv[1])
frame, _ = codec.encode(update, codec.init(layout), np.random.default_rng(0))
assert np.abs(codec.decode(frame, layout)["w"] - update["w"]).max() < 0.01
open(sys.argv[2], "wb").write(frame)
assert {"grid", "sparse_grid"} <= set(fedpress.codecs())
"""
READ = """
import sys
import fedpress
from fedpress.compression import read_codec
from fedpress.compression.frame import read_frame

try:
    print(read_codec(read_frame(open(sys.argv[1], "rb").read()).spec))
except fedpress.FrameError as error:
    print("FrameError:", error)
print("imported" if "acme.codecs" in sys.modules else "not imported")
"""


@pytest.mark.parametrize("spec", ["grid(0.01) | ans", "acme.codecs:Grid(0.01) | ans", "sparse_grid(1.0, 0.01)"])
def test_who_lacks_the_package_is_told_which_it_is(spec: str, run: Run, tmp_path: Path) -> None:
    made = run("-c", FRAME, spec, tmp_path / "frame")
    assert made.returncode == 0, made.stderr
    found = run("-c", READ, tmp_path / "frame").stdout.splitlines()
    assert "acme.codecs:Grid(0.01) | ans" in found[0]
    assert found[1] == "imported"
    lacking = run("-c", READ, tmp_path / "frame", installed=False).stdout.splitlines()
    assert lacking[0].startswith("FrameError:")
    assert "acme" in lacking[0]
    assert lacking[1] == "not imported"


NAMED_FROM_OUTSIDE = """
import sys
from fedpress.compression import SpecError, parse
from fedpress.settings import RunSettings

for spec in ("antigravity:Stage | ans", "this:s(1)", "os:system"):
    try:
        parse(spec)
    except SpecError:
        pass
    else:
        sys.exit(f"{spec} was taken")
    RunSettings.from_config({"server.rounds": 1, "server.per-round": 1, "simulation.clients": 1, "server.up": spec})
assert not {"antigravity", "this"} & set(sys.modules)
"""


def test_a_spec_from_outside_imports_nothing(run: Run) -> None:
    done = run("-c", NAMED_FROM_OUTSIDE)
    assert done.returncode == 0, done.stderr


REGISTERED = """
import fedpress
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.app import Array, ArrayRecord, MetricRecord, Message, RecordDict
from flwr.serverapp.strategy import FedAvg
import numpy as np
from fedpress.client import compress
from fedpress.compression.stages.identity import Identity
from dataclasses import dataclass
from fedpress.server import Compressed
from fedpress.simulations import simulate

@dataclass(frozen=True)
class Unchanged(Identity):
    pass

fedpress.register(Unchanged)
server, client = ServerApp(), ClientApp(mods=[compress()])

@client.train()
def train(message, context):
    (record,) = message.content.array_records.values()
    model = {name: Array(array.numpy() + np.float32(1)) for name, array in record.items()}
    content = RecordDict({"arrays": ArrayRecord(model), "metrics": MetricRecord({"num-examples": 1})})
    return Message(content, reply_to=message)

@server.main()
def main(grid, context):
    strategy = Compressed(FedAvg(fraction_evaluate=0.0), up=UP)
    result = strategy.start(grid, ArrayRecord({"w": Array(np.zeros(4, np.float32))}), num_rounds=2)
    print(result.arrays["w"].numpy().tolist())

if __name__ == "__main__":
    print(simulate(server, client, 2, 1).failures)
"""


@pytest.mark.parametrize("up", ["unchanged", "acme.codecs:Grid(0.01) | ans"])
def test_nodes_in_process_have_the_codecs_of_their_server(up: str, run: Run, tmp_path: Path) -> None:
    """Also those that are named when the workers run already, and those of the script itself."""
    (tmp_path / "script.py").write_text(REGISTERED.replace("UP", repr(up)))
    done = run("script.py")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert json.loads(lines[0]) == pytest.approx([2.0] * 4, abs=0.01)
    assert lines[1] == "0"


def test_the_page_shows_the_package_that_is_tested() -> None:
    sources = [
        path.read_text(encoding="utf-8") for path in (HERE / "acme").rglob("*") if path.suffix in (".py", ".toml")
    ]
    page = (ROOT / "docs" / "how-to" / "extend.md").read_text(encoding="utf-8")
    shown = re.findall(r"^```(?:python|toml)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    own = [block for block in shown if "import pytest" not in block and "client.toml" not in block]
    assert len(own) == 6
    for block in own:
        assert any(block.strip() in source for source in sources), block
