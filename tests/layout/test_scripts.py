"""Scripts of the checkout say in one line what they could not do."""

import os
import subprocess
from pathlib import Path

import pytest

AUDIT = Path(__file__).parents[2] / "scripts" / "audit"

pytestmark = pytest.mark.skipif(not AUDIT.is_file(), reason="the scripts are not part of the wheel")


@pytest.mark.parametrize(
    "failure",
    [
        "  cause: Failed to fetch: https://index/simple/pip-audit/",
        "requests.exceptions.ConnectionError: Max retries exceeded",
        "ERROR:pip_audit._cli:a: Dependency not found on PyPI and could not be audited: a (1.0)",
    ],
)
def test_an_audit_that_reaches_no_service_says_so(failure: str, tmp_path: Path) -> None:
    tool = tmp_path / "uv"
    tool.write_text(f"#!/bin/sh\necho 'Traceback of many lines' >&2\necho '{failure}' >&2\nexit 2\n")
    tool.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run([AUDIT], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert failure.strip() in line
