"""A folder of keys, made once: what changes it works on a copy."""

import shutil
from pathlib import Path

import pytest

from fedpress.server.keys import init


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys of a server on loopback, which no test changes."""
    folder = tmp_path_factory.mktemp("made") / "keys"
    init(folder, ["localhost", "127.0.0.1"])
    return folder


@pytest.fixture
def keys(made: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return Path(shutil.copytree(made, tmp_path / "keys"))
