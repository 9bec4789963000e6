"""A folder that holds a trained model of real data."""

from pathlib import Path

import pytest

from fedpress.simulations.run import run
from fedpress.simulations.settings import resolve


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on digits, short and good enough to be worth exporting."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    run(resolve({"clients": 10, "per-round": 5, "rounds": 4, "workers": 1, "out": str(folder)}))
    return folder
