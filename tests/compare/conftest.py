"""`fedpress compare`, called in this process; its runs are processes all the same."""

import io
import signal
import sys
from collections.abc import Callable
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from subprocess import CompletedProcess
from unittest.mock import patch

import pytest

from fedpress.cli import main

Compare = Callable[..., CompletedProcess[str]]


@pytest.fixture(scope="session")
def compare() -> Compare:
    """Call `fedpress compare` with options, in the folder `within`; return how it ended."""

    def call(*options: str, within: Path | None = None) -> CompletedProcess[str]:
        command = ["fedpress", "compare", *options]
        before, path = signal.getsignal(signal.SIGTERM), list(sys.path)
        out, err = io.StringIO(), io.StringIO()
        try:
            with patch.object(sys, "argv", command), redirect_stdout(out), redirect_stderr(err), chdir(within or "."):
                main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        finally:
            signal.signal(signal.SIGTERM, before)
            sys.path[:] = path
        return CompletedProcess(command, code, out.getvalue(), err.getvalue())

    return call
