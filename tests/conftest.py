"""What holds for all tests."""

import gc
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import hypothesis  # noqa: F401  before the first `gc.freeze`: it looks for what refers to generators
import pytest


def pytest_configure() -> None:
    """Let Ctrl-C reach what tests start: a shell's background jobs ignore it, and so would all that they start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module", autouse=True)
def _few_objects_to_collect() -> None:
    """Leave what exists so far out of later collections: some of flwr's strategies collect after every reply."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder in which `acme`, a package of somebody else, is installed by pip, with its entry points."""
    source, folder = tmp_path_factory.mktemp("source") / "acme", tmp_path_factory.mktemp("site")
    shutil.copytree(Path(__file__).parent / "packages" / "acme", source)
    words = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target"]
    subprocess.run([sys.executable, "-m", "pip", *words, str(folder), str(source)], check=True)
    return folder
