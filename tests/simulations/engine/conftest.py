"""Where engines of these tests keep their files."""

import tempfile
from pathlib import Path

import psutil
import pytest


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Where engines of a test keep their files; it is empty, and no process runs, when the test is done."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr("fedpress.simulations.engine.inprocess._MEMORY", folder)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert not list(folder.iterdir())
    assert not psutil.Process().children(recursive=True)
