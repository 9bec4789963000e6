"""The command line: `fedpress`. It reads words and prints; what it does is done in the rooms."""

import os

# fedpress never phones home, and neither does what it starts.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

from fedpress.cli.main import main

__all__ = ["main"]
