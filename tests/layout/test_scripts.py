"""Scripts of the checkout say in one line what they could not do."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

AUDIT = Path(__file__).parents[2] / "scripts" / "audit"

pytestmark = pytest.mark.skipif(not AUDIT.is_file(), reason="the scripts are not part of the wheel")


def audit(folder: Path, *, install: str = "true", run: str) -> subprocess.CompletedProcess[str]:
    """Run `scripts/audit` with a uv that does `install`, and whose pip-audit then does `run`."""
    tool = folder / "uv"
    tool.write_text(f'#!/bin/sh\ncase "$*" in *--version*) {install} ;; *) {run} ;; esac\n')
    tool.chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run([AUDIT], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("install", "run", "word"),
    [
        ("echo 'error: no' >&2; echo '  cause: Failed to fetch: a*' >&2; exit 1", "true", "Failed to fetch: a*"),
        ("true", "echo Traceback >&2; echo 'requests.exceptions.ReadTimeout: x*' >&2; exit 1", "ReadTimeout: x*"),
        ("true", "echo 'ERROR:a: Dependency not found on PyPI and could not be audited: a (1)' >&2; exit 1", "a (1)"),
    ],
)
def test_an_incomplete_audit_is_one_line(install: str, run: str, word: str, tmp_path: Path) -> None:
    done = audit(tmp_path, install=install, run=run)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert word in line


@pytest.mark.parametrize(
    ("run", "code"),
    [
        (
            "echo table; echo 'fetch, connect, timed out' >&2; echo 'Found 2 known vulnerabilities in 1' >&2; exit 1",
            1,
        ),
        ("echo 'fetch, connect, timed out' >&2; echo 'No known vulnerabilities found' >&2", 0),
        ("echo 'another error' >&2; exit 3", 3),
    ],
)
def test_an_audit_hides_nothing(run: str, code: int, tmp_path: Path) -> None:
    done = audit(tmp_path, run=run)
    assert done.returncode == code
    assert ("table" in done.stdout) == (code == 1)
    assert all(text in done.stderr for text in run.split("'")[1::2])


def test_an_audit_without_uv_says_what_to_install(tmp_path: Path) -> None:
    for name in ("dirname", "mktemp", "rm"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    done = subprocess.run(
        ["/bin/sh", AUDIT], env={**os.environ, "PATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "pip install uv" in line
