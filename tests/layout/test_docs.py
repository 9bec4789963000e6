"""What the documentation says is so: tables, commands, code, links, and the names that others rely on."""

import inspect
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

import fedpress
import fedpress.client
import fedpress.server
import fedpress.simulations
from fedpress.cli import main
from fedpress.compression.registry import STAGES, WRAPPERS
from fedpress.settings import RunSettings
from fedpress.settings.simulation import ENGINES, PARTITIONS
from fedpress.settings.training import OPTIMIZERS, SCHEDULES
from fedpress.simulations import completed_run
from fedpress.simulations import run as run_module
from fedpress.simulations.compare import run as compare_module
from fedpress.simulations.settings import resolve

from .house import PROJECT, ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
SIMULATE = (ROOT / "docs" / "how-to" / "simulate.md").read_text(encoding="utf-8")
PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY")),
    *sorted((ROOT / "docs").rglob("*.md")),
]


class Seen(Exception):
    """Raised where the work would begin."""


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Every whole call of `fedpress simulate` and `compare` in the docs: upper-case words stand for something.

    The files of experiments are planned in tests/compare, where large models are not coded first; the page on other
    packages needs one that is installed, as tests/packages does.
    """
    found = []
    for page in PAGES:
        if page.name == "extend.md":
            continue
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        found += re.findall(r"(?:^|`)(fedpress (?:simulate|compare)\b[^`\n]*)", text, re.MULTILINE)
    return [command for command in dict.fromkeys(found) if not re.search(r"\b[A-Z]{3,}\b|--help|experiments/", command)]


@pytest.fixture(scope="module")
def reference() -> dict[str, str]:
    """The generated pages."""
    pytest.importorskip("mkdocs")
    pages: dict[str, str] = runpy.run_path(str(ROOT / "scripts" / "reference.py"))["pages"]()
    return pages


def test_the_reference_has_every_setting_codec_and_name(reference: dict[str, str]) -> None:
    for choice in (*OPTIMIZERS, *SCHEDULES, *PARTITIONS, *ENGINES):
        assert re.search(rf"\b{choice}\b", reference["settings.md"]), choice
    for name in fedpress.codecs():
        assert re.search(rf"^(?:### `{name}`|\| `{name}\()", reference["codecs.md"], re.MULTILINE), name
    for package in (fedpress, fedpress.client, fedpress.server, fedpress.simulations):
        for name in package.__all__:
            written = f"::: fedpress(?:\\.\\w+)?\\.{name}\n"
            assert name.startswith("__") or any(re.search(written, page) for page in reference.values()), name


def test_the_bundle_s_configuration_is_that_of_the_default_run() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "bundle-config"))
    assert script["bundle"]() in (ROOT / "pyproject.toml").read_text(encoding="utf-8"), "run scripts/bundle-config"


def test_the_reference_has_every_command(reference: dict[str, str]) -> None:
    for name in ("simulate", "compare", "server", "client", "doctor", "keys issue", "bench codec"):
        assert f"## fedpress {name}\n" in reference["command-line.md"]


@pytest.mark.parametrize("script", ["codec-page", "edge-page", "export-page"])
def test_the_tables_are_those_of_the_measurement(script: str) -> None:
    subprocess.run([sys.executable, ROOT / "scripts" / script, "--check"], check=True)


def test_the_tables_of_runs_are_those_of_the_runs() -> None:
    subprocess.run([sys.executable, ROOT / "scripts" / "results", "check"], check=True)


def test_the_file_in_the_documentation_is_a_right_one(tmp_path: Path) -> None:
    (text,) = blocks(SIMULATE, "toml")
    (tmp_path / "run.toml").write_text(text)
    settings = resolve({}, tmp_path / "run.toml")
    assert (settings.simulation.model, settings.strategy.name) == ("mcmahan", "FedAvgM")
    assert dict(settings.strategy.arguments) == {"server-momentum": 0.9}


def test_there_are_commands_to_try() -> None:
    assert len(commands()) >= 5


@pytest.mark.parametrize("command", commands())
def test_every_command_is_a_right_call(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def run(settings: Any, *_: Any, **__: Any) -> None:
        seen.append(settings)
        raise Seen

    (tmp_path / "run.toml").write_text(blocks(SIMULATE, "toml")[0])
    (tmp_path / "runs" / "small").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_module, "run", run)
    monkeypatch.setattr(compare_module, "run_cells", run)
    monkeypatch.setattr(sys, "argv", shlex.split(command, comments=True))
    with pytest.raises(SystemExit):
        main()
    assert len(seen) == 1


def test_the_readme_s_code_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(settings: RunSettings) -> dict[str, Any]:
        assert settings == resolve(settings.to_config())
        return {"config": settings.to_result(), "rounds": [{"accuracy": 0.0}], "totals": {"ratio": 1.0}}

    monkeypatch.setattr(completed_run, "run", run)
    calls = []
    monkeypatch.setattr(fedpress.simulations, "simulate", lambda *apps, **options: calls.append((apps, options)))
    names: dict[str, Any] = {
        "update": {"w": np.linspace(-1, 1, 50, dtype=np.float32)},
        "rng": np.random.default_rng(0),
        "ClientApp": ClientApp,
        "FedAvg": FedAvg,
        "server_app": "server",
        "client_app": "client",
    }
    for block in blocks(README, "python"):
        exec(compile(block, "README.md", "exec"), names)
    assert calls == [(("server", "client"), {"num_clients": 100, "workers": 2})]
    assert names["back"]["w"].shape == (50,)
    assert isinstance(names["strategy"], fedpress.server.Compressed)


def test_the_specification_of_the_frame_has_every_stage() -> None:
    frame = (ROOT / "docs" / "explanation" / "frame.md").read_text(encoding="utf-8")
    for name in (*STAGES, *WRAPPERS):
        if ":" not in name:  # of another package, which another test registered
            assert re.search(rf"`{name}\b", frame), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
    generated = ROOT / "docs" / "reference"  # the build of the site checks these
    targets = [(page.parent / link).resolve() for link in links if "://" not in link]
    missing = [target for target in targets if not target.exists() and not target.is_relative_to(generated)]
    assert not missing


def test_the_readme_installs_the_tested_set() -> None:
    install, test, *_ = blocks(README, "sh")  # .ci/run takes its commands from these two blocks
    assert ".venv/bin/pip install -c constraints.txt -e '.[dev]'\n" in install
    assert test == ".venv/bin/python -m pytest\n"
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", pin) for pin in pins)
    assert "torch==2.13.0" in pins
    pinned = {re.sub(r"[-_.]+", "-", pin.split("==")[0]).lower() for pin in pins}
    extras = PROJECT["project"]["optional-dependencies"]
    for requirement in (
        *PROJECT["project"]["dependencies"],
        *extras["sim"],
        *extras["export"],
        *extras["docs"],
        *extras["dev"],
    ):
        name = re.split(r"[<>=\[ ]", requirement)[0]
        assert name == "fedpress" or re.sub(r"[-_.]+", "-", name).lower() in pinned


def test_the_names_that_others_rely_on_are_there() -> None:
    assert {"FrameError", "Layout", "codec", "codecs"} <= set(fedpress.__all__)
    codec = fedpress.codec("ef | topk(0.01) | uniform(4) | ans")
    assert list(inspect.signature(codec.encode).parameters)[:3] == ["update", "state", "rng"]
    assert list(inspect.signature(codec.decode).parameters)[:2] == ["frame", "layout"]
    assert "compress" in fedpress.client.__all__
    assert next(iter(inspect.signature(fedpress.server.Compressed).parameters)) == "strategy"
    assert {"up", "down"} <= set(inspect.signature(fedpress.server.Compressed).parameters)
    assert hasattr(fedpress.server.Compressed(FedAvg(), up="none", down="none"), "ledger")
    simulate = inspect.signature(fedpress.simulations.simulate).parameters
    assert list(simulate)[:4] == ["server_app", "client_app", "num_clients", "workers"]
