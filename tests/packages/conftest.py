"""Programs that find the package `acme`, or do not."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


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
