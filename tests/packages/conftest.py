"""A package of somebody else, `acme`, installed by pip into a folder of its own."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder in which the package is installed, with its entry points."""
    source, folder = tmp_path_factory.mktemp("source") / "acme", tmp_path_factory.mktemp("site")
    shutil.copytree(HERE / "acme", source)
    words = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", folder, source]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True)
    return folder


@pytest.fixture
def run(site: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Python with the package installed, or not."""

    def start(*words: object, installed: bool = True) -> subprocess.CompletedProcess[str]:
        path = [*([str(site)] if installed else []), *(entry or str(Path.cwd()) for entry in sys.path)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            [sys.executable, *map(str, words)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    return start
