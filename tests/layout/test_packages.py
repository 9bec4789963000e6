"""What is packaged: wheel and Flower bundle hold every module, and the bundle runs where fedpress is not installed."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import fedpress

from .house import PROJECT, ROOMS, ROOT, sources

MODULES = {path.relative_to(ROOT).as_posix() for room in ("fedpress", *ROOMS) for path in sources(room)}
DATA = {"fedpress/py.typed"} | {
    f"fedpress/simulations/compare/{name}"
    for name in ("report.html.jinja", "report.js.jinja", "quick.toml", "standard.toml")
}


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository's files without what earlier builds left among them."""
    folder = tmp_path_factory.mktemp("clean") / "fedpress"
    folder.mkdir()
    for name in ("fedpress", *ROOMS):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def test_every_folder_of_modules_is_a_listed_package() -> None:
    listed = set(PROJECT["tool"]["setuptools"]["packages"])
    folders = {Path(module).parent for module in MODULES}
    assert listed == {
        ".".join(("fedpress", *folder.parts)).replace("fedpress.fedpress", "fedpress") for folder in folders
    }
    assert all((ROOT / folder / "__init__.py").is_file() for folder in folders)


def test_the_wheel_holds_every_module_and_nothing_else(clean: Path, tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(tmp_path)]
    run = subprocess.run([*build, str(clean)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        licences = [name for name in archive.namelist() if name.endswith("/LICENSE")]
    assert held == {m if m.startswith("fedpress/") else f"fedpress/{m}" for m in MODULES} | DATA
    assert len(licences) == 1


@pytest.fixture(scope="module")
def bundle(clean: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Flower bundle, unpacked as a SuperLink does."""
    folder = tmp_path_factory.mktemp("bundle")
    flwr = Path(sysconfig.get_path("scripts")) / "flwr"
    environment = {**os.environ, "FLWR_HOME": str(folder / "home"), "FLWR_DISABLE_UPDATE_CHECK": "1"}
    built = subprocess.run(
        [flwr, "build", "--app", str(clean)], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (fab,) = folder.glob("*.fab")
    with zipfile.ZipFile(fab) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def test_the_bundle_holds_every_module_and_nothing_else(bundle: Path) -> None:
    held = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()}
    assert held == MODULES | {"pyproject.toml", "README.md", "LICENSE", ".info/CONTENT"}


def test_the_bundle_runs_where_fedpress_is_not_installed(bundle: Path, tmp_path: Path) -> None:
    code = """
import json, sys, tomllib
from pathlib import Path

bundle = Path(sys.argv[1])
try:
    import fedpress
except ModuleNotFoundError:
    pass
else:
    sys.exit(f"fedpress is installed: {fedpress.__file__}")
sys.path.insert(0, str(bundle))  # as Flower does
import pkgutil

app = tomllib.loads((bundle / "pyproject.toml").read_text())["tool"]["flwr"]["app"]
server, client = (pkgutil.resolve_name(app["components"][name]) for name in ("serverapp", "clientapp"))
from fedpress.settings import RunSettings
from fedpress.simulations import simulate

flatten = RunSettings.schema().flatten  # as Flower does with nested tables
small = {"simulation.clients": 4, "server.per-round": 2, "server.rounds": 2}
simulate(server, client, 4, 1, run_config={**flatten(app["config"]), **small})
homes = {str(Path(m.__file__)) for name, m in sys.modules.items() if name.split(".")[0] == "fedpress"}
print(json.dumps(sorted(homes)))
"""
    # -S leaves out what was installed for development; what fedpress needs is put back by hand.
    dependencies = tmp_path / "dependencies"
    dependencies.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "fedpress" not in entry.name:
            (dependencies / entry.name).symlink_to(entry)
    run = subprocess.run(
        [sys.executable, "-S", "-c", code, str(bundle)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(dependencies)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    homes = json.loads(run.stdout.splitlines()[-1])
    assert all(Path(home).is_relative_to(bundle) for home in homes)
    result = json.loads((tmp_path / PROJECT["tool"]["flwr"]["app"]["config"]["run"]["out"] / "result.json").read_text())
    assert len(result["rounds"]) == 2


def test_versions_agree() -> None:
    assert PROJECT["project"]["version"] == fedpress.__version__
    assert f"## [{fedpress.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
