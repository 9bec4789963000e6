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


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """A federation that a module's tests harm one after another, and that has to come to its end after all of them."""
    federation = Federation(tmp_path_factory.mktemp("lasting") / "federation", nodes=2, rounds=60)
    try:
        yield federation
        federation.heal()
        federation.finish()
    finally:
        federation.close()


@pytest.fixture
def federation(lasting: Federation) -> Iterator[Federation]:
    """Give the lasting federation, well; after the test it has to get well again, and to keep its laws."""
    lasting.heal()
    yield lasting
    lasting.heal()
    lasting.check_so_far()


@pytest.fixture
def tell() -> Callable[[str], None]:
    """Take a line that is printed when all tests are over: what was measured and has no bound."""
    return _REPORT.append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _REPORT:
        terminalreporter.section("measured")
        for line in _REPORT:
            terminalreporter.write_line(line)
