"""Where data is looked for: the folder that the run names, then the user's cache."""

import os
from pathlib import Path

from fedpress.simulations.workloads.task import Config


def cache() -> Path:
    """Return the folder where fetched data is kept: $XDG_CACHE_HOME/fedpress, else ~/.cache/fedpress."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fedpress"


def named(config: Config) -> list[Path]:
    """Return the folder of the run's setting `data`, if it has one."""
    return [Path(str(config["data"])).expanduser()] if config.get("data") else []
