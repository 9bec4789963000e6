"""The command line `fedpress`: parses arguments, calls the other packages and prints their results."""

import os
import sys

# fedpress sends no telemetry, and neither do the libraries that it starts.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

try:
    from fedpress.cli.main import main
except KeyboardInterrupt:  # the import takes a while
    if sys.stderr:
        sys.stderr.write("fedpress: stopped\n")
        sys.stderr.flush()
    os._exit(130)

__all__ = ["main"]
