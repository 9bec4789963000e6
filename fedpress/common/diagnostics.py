"""Checks of a machine that devices and servers share: software, disk, memory, dates."""

import math
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from fedpress.common.version import VERSION

OK, WARNING, FAILURE = "ok", "warning", "failure"
SOON = 30  # days before an expiry date from which on it is a warning

_GROUP = Path("/sys/fs/cgroup")  # control group of the process in a container or a service
_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


@dataclass(frozen=True)
class Finding:
    """The result of one check: its status, its finding, and advice unless it is ok."""

    check: str
    status: str
    seen: str
    advice: str = ""


def software(*wanted: str) -> Iterator[Finding]:
    """Yield the versions of Python, of fedpress and of the `wanted` distributions."""
    yield Finding("python", OK, f"{platform.python_version()} on {platform.machine()}")
    yield Finding("fedpress", OK, VERSION)
    for name in wanted:
        try:
            yield Finding(name, OK, version(name))
        except PackageNotFoundError:
            yield Finding(name, FAILURE, "not installed", "install it: pip install fedpress")


def disk(folder: Path, least: float, enough: float) -> Finding:
    """Check that `folder` is writable and has `enough` free bytes; fewer are a warning, below `least` a failure."""
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    if not os.access(existing, os.W_OK):
        return Finding("disk", FAILURE, f"{existing} cannot be written by this user", "give it to this user with chown")
    free = shutil.disk_usage(existing).free
    return _compare("disk", free, least, enough, f"free in {existing}", "make room, or name a folder on another disk")


def memory(least: float, enough: float) -> Finding:
    """Check that `enough` bytes of memory are free; fewer are a warning, below `least` a failure."""
    free = min(float(psutil.virtual_memory().available), _free_in_group())
    return _compare(
        "memory", free, least, enough, "free", "stop what else runs here, add swap, or train a smaller model"
    )


def date(check: str, until: datetime, advice: str) -> Finding:
    """Check that the date `until` is not past or near."""
    left = until - datetime.now(UTC)
    seen = f"until {until:%Y-%m-%d %H:%M %Z}, {left.days} days"
    if left.total_seconds() <= 0:
        return Finding(check, FAILURE, f"ended at {until:%Y-%m-%d %H:%M %Z}", advice)
    return Finding(check, WARNING, seen, advice) if left.days < SOON else Finding(check, OK, seen)


def _compare(check: str, free: float, least: float, enough: float, where: str, advice: str) -> Finding:
    seen = f"{_amount(free)} {where}"
    if free >= enough:
        return Finding(check, OK, seen)
    if free >= least:
        return Finding(check, WARNING, f"{seen}, {_amount(enough)} is comfortable", advice)
    return Finding(check, FAILURE, f"{seen}, {_amount(least)} is the least", advice)


def _free_in_group() -> float:
    """Return the free memory within the control group's limit, bytes; infinity without a limit."""
    try:
        return float((_GROUP / "memory.max").read_text()) - float((_GROUP / "memory.current").read_text())
    except (OSError, ValueError):  # no limit reads as "max"
        return math.inf


def _amount(size: float) -> str:
    return next((f"{size / unit:.1f} {name}" for unit, name in _UNITS if size >= unit), f"{size:.0f} B")
