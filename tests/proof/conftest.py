"""Federations of real processes, ended whatever becomes of their test."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .federation import Federation


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
