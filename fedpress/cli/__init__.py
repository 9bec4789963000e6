"""The command line `fedpress`: parses arguments, calls the other packages and prints their results."""

import os

# fedpress sends no telemetry, and neither do the libraries that it starts.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

from fedpress.cli.main import main

__all__ = ["main"]
