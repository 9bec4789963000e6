"""Limits of a device: cores, memory, hours, a command that allows work, bytes a day."""

import contextlib
import ctypes
import os
import re
import resource
import shlex
import subprocess
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from fedpress.common.errors import SettingError
from fedpress.settings.device import LimitSettings, read_hours

_SOON = 30.0  # seconds until what holds is looked at again
_MB = 1_000_000
# By itself glibc raises this with each large block that is freed, and what is smaller stays in the heap, in pieces:
# 80 MB after three rounds of a CNN of 1.7 million parameters. A larger block goes back to the system when it is freed.
_M_MMAP_THRESHOLD, _MMAP_THRESHOLD = -3, 1 << 18
_DAY = 24 * 60


def until_open(hours: Sequence[str], now: datetime) -> float:
    """Return the seconds until `hours` next allow work; 0 if they do now."""
    spans = read_hours(hours)
    at = now.hour * 60 + now.minute + now.second / 60
    if not spans or any(b <= at < e if b < e else (at >= b or at < e) for b, e in spans):
        return 0.0
    return min((begin - at) % _DAY for begin, _ in spans) * 60


def apply(limits: LimitSettings) -> None:
    """Set what holds for the whole process; raise SettingError if it is beyond what the process has already.

    Memory is bounded as RLIMIT_DATA: pages that are the process's own and written to. RLIMIT_AS counts address space,
    of which torch and its threads map gigabytes that they never touch. Beyond the bound an allocation fails, which is
    an exception in the app and an error in the round; the process lives on. A cgroup kills it instead: that is for the
    service manager, as a second line.
    """
    os.nice(max(0, limits.nice - os.nice(0)))
    with contextlib.suppress(OSError, AttributeError):  # glibc's alone
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD)
    if limits.memory:
        used = _data_in_use()
        if limits.memory * _MB <= used:
            raise SettingError(
                f"memory must be above the {-(-used // _MB)} MB that an idle client takes, got {limits.memory}"
            )
        resource.setrlimit(resource.RLIMIT_DATA, (limits.memory * _MB, limits.memory * _MB))


def _data_in_use() -> int:
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    found = re.search(r"^VmData:\s+(\d+) kB", status.read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


class Availability:
    """Says whether a device may take work now.

    While it may not, the device is signed off at the server, which then asks others: a node that is there and does not
    answer would hold up every round until its timeout.
    """

    def __init__(
        self,
        limits: LimitSettings,
        used: Callable[[], int],
        kept: dict[str, Any],
        *,
        now: Callable[[], datetime] = datetime.now,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take over from an earlier process: `kept` is what its `keep` returned. `used` counts this process's bytes."""
        self._limits = limits
        self._used = used
        self._now = now
        self._clock = clock
        self._day = str(kept.get("day", ""))
        self._before = int(kept.get("bytes", 0))
        self._since = 0  # of this process's bytes, those that belong to earlier days
        self._answer = ""
        self._asked = float("-inf")
        _ = self.today  # from now on the bytes are this day's

    @property
    def today(self) -> int:
        """Bytes sent and received today."""
        day = self._now().date().isoformat()
        if day != self._day:
            self._day, self._before, self._since = day, 0, self._used()
        return self._before + self._used() - self._since

    def keep(self) -> dict[str, Any]:
        """Return what has to outlive the process."""
        today = self.today
        return {"day": self._day, "bytes": today}

    def holds(self) -> tuple[str, float]:
        """Return why no work may be taken now and when to look again, seconds; empty if it may."""
        now = self._now()
        if wait := until_open(self._limits.hours, now):
            return f"outside its hours, {', '.join(self._limits.hours)}", max(1.0, wait)
        most = self._limits.bytes_a_day
        if most and self.today >= most:
            tomorrow = datetime.combine(now.date() + timedelta(days=1), datetime.min.time())
            return f"{self.today:,} of {most:,} bytes a day are used", (tomorrow - now).total_seconds() + 1
        if self._limits.allow and (reason := self._ask()):
            return reason, _SOON
        return "", 0.0

    def _ask(self) -> str:
        """Return why the command says no; its answer holds for a while."""
        if self._clock() - self._asked >= _SOON:
            self._asked = self._clock()
            self._answer = self._run()
        return self._answer

    def _run(self) -> str:
        command = shlex.split(self._limits.allow)
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=self._limits.allow_seconds,
                check=False,
                start_new_session=True,
            )
        except subprocess.TimeoutExpired:
            return f"`{command[0]}` did not answer in {self._limits.allow_seconds:g} s"
        except OSError as error:
            return f"`{command[0]}` cannot be run: {error.strerror}"
        return "" if done.returncode == 0 else f"`{self._limits.allow}` says no"
