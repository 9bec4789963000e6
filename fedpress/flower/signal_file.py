"""A bell between processes of one machine: a file whose time of change says that there is something to ask for.

Asking SuperLink costs a request; listening for a bell costs next to nothing. A bell that is missed costs no more than
the time until whoever listens asks all the same.
"""

import os
import time
from pathlib import Path


class SignalFile:
    """One bell; it rings for all that have the same path."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def ring(self) -> None:
        """Ring it."""
        now = time.time_ns()
        try:
            os.utime(self._path, ns=(now, now))
        except FileNotFoundError:
            self._path.touch()

    @property
    def rung(self) -> int:
        """What is another number whenever it has been rung since."""
        try:
            return self._path.stat().st_mtime_ns
        except FileNotFoundError:
            return 0
