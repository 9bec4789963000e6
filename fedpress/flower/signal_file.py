"""A signal between processes of one machine: a file whose modification time changes when SuperLink has new messages.

Polling SuperLink costs a request; reading the file's time costs almost nothing. Processes also poll at a longer
interval, so a missed signal only causes a delay.
"""

import os
import time
from pathlib import Path


class SignalFile:
    """A signal for all processes that use the same path."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def send(self) -> None:
        """Send the signal."""
        now = time.time_ns()
        try:
            os.utime(self._path, ns=(now, now))
        except FileNotFoundError:
            self._path.touch()

    @property
    def last(self) -> int:
        """A number that changes with each signal: the modification time, ns; 0 before the first."""
        try:
            return self._path.stat().st_mtime_ns
        except FileNotFoundError:
            return 0
