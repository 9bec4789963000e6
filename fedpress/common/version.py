"""The version of fedpress, readable where fedpress is unpacked but not installed, and those of other software."""

import os
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

VERSION = "0.1.0"


def versions() -> dict[str, str]:
    """Return the versions of the software, and the number of cores, that a run uses."""
    software = {"python": platform.python_version(), "cores": str(os.cpu_count()), "fedpress": VERSION}
    for package in ("flwr", "torch", "numpy"):
        with suppress(PackageNotFoundError):  # a user's own app may use no torch
            software[package] = version(package)
    return software
