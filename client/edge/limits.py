"""What a device gives, and when: cores, memory, hours, a command's word, bytes a day."""

import contextlib
import ctypes
import os
import re
import resource
import shlex
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from fedpress.common.errors import SettingError
from fedpress.common.settings import require

_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]|24):([0-5]\d)")
_SOON = 30.0  # seconds until what holds is looked at again
_MB = 1_000_000
# By itself glibc raises this with each large block that is freed, and what is smaller stays in the heap, in pieces:
# 80 MB after three rounds of a CNN of 1.7 million parameters. A larger block goes back to the system when it is freed.
_M_MMAP_THRESHOLD, _MMAP_THRESHOLD = -3, 1 << 18
_DAY = 24 * 60


@dataclass(frozen=True)
class Limits:
    """What a device gives at most."""

    threads: int = 1  # of torch
    memory: int = 0  # MB of private memory; an app that wants more fails its round. 0 for no limit
    nice: int = 10  # of the process: 0 to 19, the higher the more it lets others go first
    hours: str = ""  # when it takes work, by local time: 22:00-06:00, several between commas; empty for always
    allow: str = ""  # a command that exits with 0 if the device may take work now; empty for always
    allow_seconds: float = 10.0  # that the command may take; longer is a no
    bytes_a_day: int = 0  # of HTTP, both ways, by local date; no round begins beyond it. 0 for no limit

    def __post_init__(self) -> None:
        require(self.threads >= 1, "threads", "at least 1", self.threads)
        require(self.memory >= 0, "memory", "at least 0", self.memory)
        require(0 <= self.nice <= 19, "nice", "of 0 to 19", self.nice)
        require(self.allow_seconds > 0, "allow_seconds", "above 0", self.allow_seconds)
        require(self.bytes_a_day >= 0, "bytes_a_day", "at least 0", self.bytes_a_day)
        read_hours(self.hours)
        try:
            shlex.split(self.allow)
        except ValueError as error:
            raise SettingError(f"allow is a command, got {self.allow!r}: {error}") from error


def read_hours(text: str) -> list[tuple[int, int]]:
    """Return the spans of `text` in minutes from midnight; one that ends before it begins goes over midnight."""
    spans = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        found = _HOURS.fullmatch(part)
        if not found:
            raise SettingError(f"hours are HH:MM-HH:MM, several between commas, got {part!r}")
        begin, end = (int(found[i]) * 60 + int(found[i + 1]) for i in (1, 3))
        if begin == end or end > _DAY:
            raise SettingError(f"hours are a span of the day, got {part!r}")
        spans.append((begin, end))
    return spans


def until_open(text: str, now: datetime) -> float:
    """Return the seconds until `hours` next allow work; 0 if they do now."""
    spans = read_hours(text)
    at = now.hour * 60 + now.minute + now.second / 60
    if not spans or any(b <= at < e if b < e else (at >= b or at < e) for b, e in spans):
        return 0.0
    return min((begin - at) % _DAY for begin, _ in spans) * 60


def apply(limits: Limits) -> None:
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
            raise SettingError(f"memory is above the {-(-used // _MB)} MB that an idle client has, got {limits.memory}")
        resource.setrlimit(resource.RLIMIT_DATA, (limits.memory * _MB, limits.memory * _MB))


def _data_in_use() -> int:
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    found = re.search(r"^VmData:\s+(\d+) kB", status.read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


class Gatekeeper:
    """Says whether a device may take work now.

    While it may not, the device is signed off at the server, which then asks others: a node that is there and does not
    answer would hold up every round until its timeout.
    """

    def __init__(
        self,
        limits: Limits,
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
            return f"outside its hours, {self._limits.hours}", max(1.0, wait)
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
