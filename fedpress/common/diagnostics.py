"""What an inspection of a machine finds, and the checks that both ends have: software, disk, memory, dates."""

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
SOON = 30  # days before a date at which it is warned of

_GROUP = Path("/sys/fs/cgroup")  # of the process, as a container and a service see it
_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


@dataclass(frozen=True)
class Finding:
    """One check: how it ended, what was seen, and what to do if that is not well."""

    check: str
    status: str
    seen: str
    advice: str = ""


def software(*wanted: str) -> Iterator[Finding]:
    """Yield what is installed of `wanted` distributions, beside Python and fedpress."""
    yield Finding("python", OK, f"{platform.python_version()} on {platform.machine()}")
    yield Finding("fedpress", OK, VERSION)
    for name in wanted:
        try:
            yield Finding(name, OK, version(name))
        except PackageNotFoundError:
            yield Finding(name, FAILURE, "not installed", "install it: pip install fedpress")


def disk(folder: Path, least: float, enough: float) -> Finding:
    """Say whether `folder` can be written, and has `enough` bytes, or the `least` that it takes."""
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    if not os.access(there, os.W_OK):
        return Finding("disk", FAILURE, f"{there} cannot be written by this user", "give it to this user with chown")
    free = shutil.disk_usage(there).free
    return _judge("disk", free, least, enough, f"free in {there}", "make room, or name a folder on another disk")


def memory(least: float, enough: float) -> Finding:
    """Say whether the machine, or a container's limit, leaves `enough` memory, or the `least` that it takes."""
    free = min(float(psutil.virtual_memory().available), _within_limit())
    return _judge("memory", free, least, enough, "free", "stop what else runs here, add swap, or train a smaller model")


def date(check: str, until: datetime, advice: str) -> Finding:
    """Say how long something holds that ends at `until`."""
    left = until - datetime.now(UTC)
    seen = f"until {until:%Y-%m-%d %H:%M %Z}, {left.days} days"
    if left.total_seconds() <= 0:
        return Finding(check, FAILURE, f"ended at {until:%Y-%m-%d %H:%M %Z}", advice)
    return Finding(check, WARNING, seen, advice) if left.days < SOON else Finding(check, OK, seen)


def _judge(check: str, free: float, least: float, enough: float, where: str, advice: str) -> Finding:
    seen = f"{_amount(free)} {where}"
    if free >= enough:
        return Finding(check, OK, seen)
    if free >= least:
        return Finding(check, WARNING, f"{seen}, {_amount(enough)} is comfortable", advice)
    return Finding(check, FAILURE, f"{seen}, {_amount(least)} is the least", advice)


def _within_limit() -> float:
    """Return what a control group's limit leaves."""
    try:
        return float((_GROUP / "memory.max").read_text()) - float((_GROUP / "memory.current").read_text())
    except (OSError, ValueError):  # no limit reads as "max"
        return math.inf


def _amount(size: float) -> str:
    return next((f"{size / unit:.1f} {name}" for unit, name in _UNITS if size >= unit), f"{size:.0f} B")
