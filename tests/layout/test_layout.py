"""The house stands as it was drawn: who imports whom, what is packaged, what a bundle holds."""

import ast
import importlib.metadata
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from fedpress.simulations.settings import resolve

import fedpress

ROOT = Path(__file__).parents[2]
ROOMS = ("compression", "client", "server", "simulations")
# What a room may import of fedpress; `fedpress.compression` means that room and all in it.
MAY = {
    "compression": {"compression"},
    "client": {"compression", "client"},
    "server": {"compression", "server"},
    "simulations": {"compression", "client", "server", "simulations"},
}
FORBIDDEN = {"compression": {"torch", "flwr"}}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def sources(room: str) -> list[Path]:
    return [path for path in (ROOT / room).rglob("*.py") if "__pycache__" not in path.parts]


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_one_way(room: str) -> None:
    for path in sources(room):
        for name in imported(path):
            first, _, rest = name.partition(".")
            if first == "fedpress":
                assert rest.split(".")[0] in MAY[room], f"{path} imports {name}"
            assert first not in FORBIDDEN.get(room, set()), f"{path} imports {name}"
            assert first not in ROOMS, f"{path}: rooms are imported as fedpress.{name}"


def test_compression_runs_without_torch_and_flwr() -> None:
    code = (
        "import sys, numpy as np, fedpress\n"
        "codec = fedpress.codec('ef | topk(0.5) | quant(4) | ans')\n"
        "update = {'x': np.arange(4, dtype=np.float32)}\n"
        "layout = fedpress.Layout.of(update)\n"
        "frame, state = codec.encode(update, codec.init(layout), np.random.default_rng(0))\n"
        "codec.decode(frame, layout)\n"
        "print(sorted({'torch', 'flwr'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_every_package_is_listed() -> None:
    listed = set(PROJECT["tool"]["setuptools"]["packages"])
    found = {
        ".".join(("fedpress", *folder.relative_to(ROOT).parts))
        if room != "fedpress"
        else ".".join(folder.relative_to(ROOT).parts)
        for room in ("fedpress", *ROOMS)
        for folder in {path.parent for path in sources(room)}
    }
    assert listed == found
    assert all(
        (ROOT / Path(*p.split(".")[1:]) / "__init__.py").is_file() or p.startswith("fedpress.cli") or p == "fedpress"
        for p in listed
    )


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-q",
        "-w",
        str(folder),
        str(ROOT),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_every_module_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    due = {f"fedpress/{path.relative_to(ROOT)}" for room in ROOMS for path in sources(room)}
    due |= {str(path.relative_to(ROOT)) for path in sources("fedpress")} | {"fedpress/py.typed"}
    assert held == due


def test_a_bundle_runs_where_fedpress_is_not_installed(tmp_path: Path) -> None:
    environment = {**os.environ, "FLWR_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    flwr = Path(sys.executable).with_name("flwr")
    subprocess.run([flwr, "build", "--app", str(ROOT)], cwd=tmp_path, env=environment, check=True, capture_output=True)
    (bundle,) = tmp_path.glob("*.fab")
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(tmp_path / "unpacked")
    # -S -I hide what is installed for development; the dependencies are put back by hand.
    code = (
        "import sys; sys.path[:0] = [sys.argv[1]]; sys.path.append(sys.argv[2])\n"
        "import fedpress.server.app, fedpress.client.app, fedpress.simulations\n"
        "print(fedpress.server.app.__file__)"
    )
    packages = str(Path(importlib.metadata.distribution("flwr").locate_file("")))
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(tmp_path / "unpacked"), packages],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == str(tmp_path / "unpacked" / "server" / "app.py")


def test_the_bundle_configuration_is_the_default_run() -> None:
    assert PROJECT["tool"]["flwr"]["app"]["config"] == resolve({"out": "fedpress-run"})


def test_versions_agree() -> None:
    assert PROJECT["project"]["version"] == fedpress.__version__
    assert f"## [{fedpress.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_the_readme_and_the_check_of_everything_install_the_tested_set() -> None:
    assert "pip install -c constraints.txt -e '.[dev]'" in (ROOT / "README.md").read_text()
    pinned = (ROOT / "constraints.txt").read_text()
    assert "\ntorch==2.13.0\n" in pinned
    assert "://" not in pinned
