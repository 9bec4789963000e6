"""What docs/how-to/deploy.md has an engineer type, and what it has a device install, is right."""

import json
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import click
import pytest
import typer
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import parse_wheel_filename

from fedpress.cli.main import app
from fedpress.client.edge.settings import resolve as resolve_client
from fedpress.server.deploy.settings import resolve as resolve_server

from .house import PROJECT, ROOT

EDGE = ROOT / "docs" / "edge"
PAGE = (ROOT / "docs" / "how-to" / "deploy.md").read_text(encoding="utf-8")
UNITS = sorted(EDGE.glob("*.service"))
PINS = (EDGE / "constraints.txt").read_text(encoding="utf-8")
PYTHONS = ("3.11", "3.12", "3.13")  # Raspberry Pi OS 12 has the first, 13 the last


def commands() -> list[str]:
    """Every call of fedpress in the page's blocks and in the units."""
    text = "".join(re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
    for unit in UNITS:
        text += "".join(re.findall(r"^ExecStart=.*\n", unit.read_text(encoding="utf-8"), re.MULTILINE))
    found = re.findall(r"(?:^|[ /=])(fedpress (?:keys|server|client|doctor)\b[^;\n]*)", text.replace("\\\n", " "), re.M)
    return [*dict.fromkeys(found)]


def pinned(text: str) -> dict[str, str]:
    lines = [line.split("==") for line in text.splitlines() if line and not line.startswith("#")]
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in lines}


def test_there_are_commands_to_try() -> None:
    assert len(commands()) >= 10


@pytest.mark.parametrize("command", commands())
def test_every_command_is_a_right_call(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _, *words = shlex.split(re.sub(r"/etc/fedpress/|%\w/", "", command))
    for word in words:
        if word.endswith((".toml", ".enrol", "enrolment")):
            Path(word).touch()
    Path("keys").mkdir()
    group: click.Command = typer.main.get_command(app)
    context = click.Context(group, info_name="fedpress")
    while isinstance(group, click.Group):
        name, command_found, words = group.resolve_command(context, words)
        assert command_found is not None, name
        group = command_found
        context = click.Context(group, parent=context, info_name=name)
    assert group.make_context(group.name, words, parent=context).command is group


def test_the_files_of_settings_are_right_ones(tmp_path: Path) -> None:
    blocks = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    for number, block in enumerate(blocks):
        path = tmp_path / f"{number}.toml"
        path.write_text(block)
        if "[server]" in block:
            served = resolve_server({}, path)
            assert (served.deployment.nodes, served.simulation.workload) == (2, "digits")
        else:
            settings = resolve_client({}, path)
            told = {key: value for table in tomllib.loads(block).values() for key, value in table.items()}
            parts = (settings.device, settings.limits)
            found = {key: value for part in parts for key, value in vars(part).items()}
            lists = {key: tuple(value) if isinstance(value, list) else value for key, value in told.items()}
            assert all(found[key.replace("-", "_")] == value for key, value in lists.items())


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_systemd_knows_every_line_of_a_unit(unit: Path, tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not here")
    # The command is looked for, so here it is one that is there.
    text = unit.read_text(encoding="utf-8").replace("/opt/fedpress/bin/fedpress", "/bin/true")
    (tmp_path / unit.name).write_text(text)
    run = subprocess.run(
        [analyze, "verify", "--man=no", tmp_path / unit.name], capture_output=True, text=True, check=False
    )
    said = [line for line in run.stderr.splitlines() if unit.name in line]
    # These two are of systemd 254; what does not know them leaves them out.
    assert [line for line in said if not re.search(r"'(RestartSteps|RestartMaxDelaySec)'", line)] == []


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_a_unit_is_hardened_and_torch_runs_in_it(unit: Path) -> None:
    lines = unit.read_text(encoding="utf-8").splitlines()
    for line in (
        *("NoNewPrivileges=yes", "PrivateTmp=yes", "ProtectSystem=strict", "ProtectHome=yes", "CapabilityBoundingSet="),
        *("StartLimitIntervalSec=0", "RestartSteps=8", "RestartMaxDelaySec=300", "SystemCallFilter=@system-service"),
    ):
        assert line in lines
    assert any(line.startswith("MemoryMax=") for line in lines)
    assert any(line.startswith("StateDirectory=") for line in lines)
    assert ("DynamicUser=yes" in lines) or ("User=fedpress" in lines)
    assert not any(line.startswith("MemoryDenyWriteExecute") for line in lines)


def test_a_container_has_no_root_and_the_base_install_alone() -> None:
    text = (EDGE / "Containerfile").read_text(encoding="utf-8")
    assert "--only-binary=:all: --require-hashes -r docs/edge/requirements.txt" in text
    assert "pip install --no-cache-dir --no-deps .\n" in text
    assert re.search(r"^USER 10001$", text, re.MULTILINE)
    for source in re.findall(r"^COPY ((?:[\w./]+ )+)", text, re.MULTILINE):
        assert all((ROOT / name).exists() for name in source.split())


def test_a_device_installs_the_tested_set_but_for_torch() -> None:
    ours, tested = pinned(PINS), pinned((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    assert {name for name, version in ours.items() if tested.get(name) != version} == {"torch"}
    for requirement in PROJECT["project"]["dependencies"]:
        assert re.split(r"[<>=\[ ]", requirement)[0] in ours


def test_the_lock_file_of_devices_has_those_versions_with_hashes() -> None:
    """Written by `scripts/lock`. What is not pinned is for some machines or versions of Python alone."""
    lines = (EDGE / "requirements.txt").read_text(encoding="utf-8").replace("\\\n", "").splitlines()
    assert all("--hash=sha256:" in line for line in lines)
    locked, ours = pinned("\n".join(line.split(" ")[0] for line in lines)), pinned(PINS)
    assert {name for name, version in locked.items() if ours.get(name) not in (version, None)} == set()
    everywhere = pinned("\n".join(line.split(" ")[0] for line in lines if " ; " not in line))
    assert set(everywhere) <= set(ours)
    for requirement in PROJECT["project"]["dependencies"]:
        assert re.split(r"[<>=\[ ]", requirement)[0] in everywhere


def wheels(python: str, folder: Path) -> dict[str, list[str]]:
    """The wheels, by distribution, that a device with this Python may choose from: resolved, and nothing installed."""
    lock = folder / f"pylock.v{python.replace('.', '')}.toml"
    uv = Path(sysconfig.get_path("scripts")) / "uv"  # flwr depends on it
    run = subprocess.run(
        [
            *(uv, "pip", "compile", ROOT / "pyproject.toml", "-c", EDGE / "constraints.txt", "--no-config"),
            *("--python-platform", "aarch64-manylinux_2_28", "--python-version", python, "--no-python-downloads"),
            *("--only-binary", ":all:", "--format", "pylock.toml", "-o", lock, "--cache-dir", folder / "cache"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode and re.search(r"dns error|client error \(Connect\)|timed out|Connection refused", run.stderr):
        pytest.skip(f"the package index cannot be reached: {run.stderr.strip().splitlines()[-1]}")
    assert run.returncode == 0, run.stderr
    packages = tomllib.loads(lock.read_text(encoding="utf-8"))["packages"]
    return {
        package["name"]: [wheel.get("name") or wheel["url"].rsplit("/", 1)[-1] for wheel in package.get("wheels", [])]
        for package in packages
    }


@pytest.mark.slow
@pytest.mark.parametrize("python", PYTHONS)
def test_every_dependency_has_a_wheel_for_64_bit_arm(python: str, tmp_path: Path) -> None:
    version = tuple(map(int, python.split(".")))
    platforms = [f"manylinux_2_{minor}_aarch64" for minor in range(28, 16, -1)] + ["manylinux2014_aarch64"]
    fit: set[Tag] = {
        *cpython_tags(version, platforms=platforms),
        *compatible_tags(version, f"cp{version[0]}{version[1]}", platforms),
    }
    found = wheels(python, tmp_path)
    without = [name for name, files in found.items() if not any(parse_wheel_filename(file)[3] & fit for file in files)]
    assert without == []
    assert {re.split(r"[<>=\[ ]", line)[0] for line in PROJECT["project"]["dependencies"]} <= set(found)
    assert set(found) <= set(pinned(PINS))
    assert not [name for name in found if name.startswith(("nvidia", "cuda", "triton"))]


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="seen on x86-64")
def test_convolutions_need_memory_that_is_written_and_run() -> None:
    """The reason why the units have no MemoryDenyWriteExecute, tested with the kernel."""
    code = """
import ctypes, json, sys
if ctypes.CDLL(None, use_errno=True).prctl(65, 1, 0, 0, 0):  # PR_SET_MDWE, Linux 6.3
    print(json.dumps("no such thing"))
    sys.exit()
import torch
try:
    torch.nn.Conv2d(1, 32, 5, padding=2)(torch.zeros(64, 1, 28, 28))
except RuntimeError as error:
    print(json.dumps(str(error)))
else:
    print(json.dumps("runs"))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said = json.loads(run.stdout)
    if said == "no such thing":
        pytest.skip("this kernel has no PR_SET_MDWE")
    assert said != "runs", "torch does without: the units may have MemoryDenyWriteExecute"
