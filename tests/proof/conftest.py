"""Federations of real processes, ended whatever becomes of their test, and what their tests have to report."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .federation import Federation

_REPORT: list[str] = []


@pytest.fixture
def make_federation(tmp_path: Path) -> Iterator[Callable[..., Federation]]:
    """Make a federation, its keys issued and nothing started."""
    made: list[Federation] = []

    def make(**options: Any) -> Federation:
        made.append(Federation(tmp_path / f"federation-{len(made)}", **options))
        return made[-1]

    yield make
    for federation in made:
        federation.close()


@pytest.fixture
def tell() -> Callable[[str], None]:
    """Take a line that is printed when all tests are over: what was measured and has no bound."""
    return _REPORT.append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _REPORT:
        terminalreporter.section("measured")
        for line in _REPORT:
            terminalreporter.write_line(line)
