"""The command, called in this process or started as another, in an empty folder."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import fedpress
from fedpress.cli import main


@dataclass(frozen=True)
class Said:
    """How a call ended."""

    code: int
    out: str
    err: str


Call = Callable[..., Said]


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with nothing in it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], empty: Path) -> Iterator[Call]:
    """Call the command here."""
    before = signal.getsignal(signal.SIGTERM)

    def run(*words: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["fedpress", *words])
        with pytest.raises(SystemExit) as end:
            main()
        code = end.value.code
        captured = capsys.readouterr()
        return Said(code if isinstance(code, int) else 0, captured.out, captured.err)

    yield run
    signal.signal(signal.SIGTERM, before)


def start(*words: str, folder: Path, **options: object) -> "subprocess.Popen[str]":
    """Start the command in `folder`, in a separate session, where a Ctrl-C reaches all of its processes."""
    # Where fedpress is not installed, it is imported from this checkout.
    found = Path(fedpress.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(found), os.environ.get("PYTHONPATH", "")])}
    defaults = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(
        [sys.executable, "-m", "fedpress", *words],
        cwd=folder,
        env=environment,
        text=True,
        start_new_session=True,
        **{**defaults, **options},  # type: ignore[arg-type]
    )


def finish(process: "subprocess.Popen[str]") -> Said:
    """Wait for its end."""
    out, err = process.communicate(timeout=120)
    return Said(process.returncode, out, err)
