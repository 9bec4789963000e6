"""Where data is looked for: in the folder that the run names, else in the user's cache."""

import os
from collections.abc import Mapping
from pathlib import Path

Config = Mapping[str, str | int | float | bool]


def cache() -> Path:
    """Return the folder where fetched data is kept: $XDG_CACHE_HOME/fedpress, else ~/.cache/fedpress."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fedpress"


def named(config: Config) -> Path | None:
    """Return the folder of the run's setting `data`: who names one wants no other; None if it names none."""
    return Path(str(config["data"])).expanduser() if config.get("data") else None
