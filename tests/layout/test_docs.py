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
from fedpress.client.training.settings import OPTIMIZERS, SCHEDULES
from fedpress.compression.registry import STAGES, WRAPPERS
from fedpress.simulations import run as run_module
from fedpress.simulations.compare import run as compare_module
from fedpress.simulations.settings import ENGINES, resolve
from fedpress.simulations.workloads.partitions import KINDS

from .house import PROJECT, ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
SIMULATE = (ROOT / "docs" / "simulate.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


class Seen(Exception):
    """Raised where the work would begin."""


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Every whole call of `fedpress simulate` and `compare` in the docs: upper-case words stand for something.

    The files of experiments are planned in tests/compare, where large models are not coded first.
    """
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        found += re.findall(r"(?:^    |`|^\S*/)(fedpress (?:simulate|compare)\b[^`\n]*)", text, re.MULTILINE)
    return [command for command in dict.fromkeys(found) if not re.search(r"\b[A-Z]{3,}\b|--help|experiments/", command)]


def test_the_tables_of_settings_are_those_of_the_code() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "tables"))
    for page, tables in script["tables"]().items():
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        written = text.split(script["BEGIN"])[1].split(script["END"])[0]
        assert written == "\n" + tables, "run scripts/tables"
    written = script["tables"]()["simulate.md"]
    for choice in (*OPTIMIZERS, *SCHEDULES, *KINDS, *ENGINES):
        assert re.search(rf"\b{choice}\b", written), choice


@pytest.mark.parametrize("script", ["codec-page", "edge-page", "export-page"])
def test_the_tables_are_those_of_the_measurement(script: str) -> None:
    subprocess.run([sys.executable, ROOT / "scripts" / script, "--check"], check=True)


def test_the_tables_of_runs_are_those_of_the_runs() -> None:
    subprocess.run([sys.executable, ROOT / "scripts" / "results", "check"], check=True)


def test_the_file_in_the_documentation_is_a_right_one(tmp_path: Path) -> None:
    (text,) = blocks(SIMULATE, "toml")
    (tmp_path / "run.toml").write_text(text)
    config = resolve({}, tmp_path / "run.toml")
    assert (config["model"], config["strategy"], config["strategy.server-momentum"]) == ("mcmahan", "FedAvgM", 0.9)


def test_there_are_commands_to_try() -> None:
    assert len(commands()) >= 5


@pytest.mark.parametrize("command", commands())
def test_every_command_is_a_right_call(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def run(settings: Any, *_: Any, **__: Any) -> None:
        seen.append(settings)
        raise Seen

    (tmp_path / "run.toml").write_text(blocks(SIMULATE, "toml")[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_module, "run", run)
    monkeypatch.setattr(compare_module, "run_cells", run)
    monkeypatch.setattr(sys, "argv", shlex.split(command, comments=True))
    with pytest.raises(SystemExit):
        main()
    assert len(seen) == 1


def test_the_readme_s_code_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(settings: dict[str, Any]) -> dict[str, Any]:
        assert settings == resolve({key: settings[key] for key in settings if key != "task"})
        return {"final": {"accuracy": 0.0}, "totals": {"uplink_ratio": 1.0}}

    monkeypatch.setattr(run_module, "run", run)
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


def test_every_codec_is_described() -> None:
    codecs, frame = ((ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8") for page in ("codecs", "frame"))
    for name in fedpress.codecs():
        assert re.search(rf"^\|.*`{name}\b", codecs, re.MULTILINE), name
    for name in (*STAGES, *WRAPPERS):
        assert re.search(rf"`{name}\b", frame), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing


def test_the_readme_installs_the_tested_set() -> None:
    install, test = blocks(README, "sh")  # .ci/run takes its commands from these two blocks
    assert ".venv/bin/pip install -c constraints.txt -e '.[dev]'\n" in install
    assert test == ".venv/bin/python -m pytest\n"
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", pin) for pin in pins)
    assert "torch==2.13.0" in pins
    pinned = {re.sub(r"[-_.]+", "-", pin.split("==")[0]).lower() for pin in pins}
    extras = PROJECT["project"]["optional-dependencies"]
    for requirement in (*PROJECT["project"]["dependencies"], *extras["sim"], *extras["export"], *extras["dev"]):
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
