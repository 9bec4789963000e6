"""The folders of data: the one that the run names, else the user's cache."""

import os
from pathlib import Path

from fedpress.settings.simulation import SimulationSettings


def cache() -> Path:
    """Return the folder where fetched data is kept: $XDG_CACHE_HOME/fedpress, else ~/.cache/fedpress."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fedpress"


def named(settings: SimulationSettings) -> Path | None:
    """Return the folder that the setting `data` names, the only one to search then; None if it is empty."""
    return Path(settings.data).expanduser() if settings.data else None
