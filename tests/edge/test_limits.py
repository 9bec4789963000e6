"""When a device gives what."""

import shlex
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpress.client.edge.limits import Availability, until_open
from fedpress.common.errors import SettingError
from fedpress.settings.device import LimitSettings

NOON = datetime(2030, 5, 6, 12, 0, 0)


class Day:
    """A clock, and bytes, that a test moves."""

    def __init__(self) -> None:
        self.now = NOON
        self.used = 0

    def gate(self, kept: dict[str, object] | None = None, **limits: object) -> Availability:
        def seconds() -> float:
            return (self.now - NOON).total_seconds()

        return Availability(LimitSettings(**limits), lambda: self.used, kept or {}, now=lambda: self.now, clock=seconds)


@settings(deadline=None)
@given(st.integers(0, 1439), st.integers(0, 1439), st.integers(0, 86399))
def test_hours_go_over_midnight(begin: int, end: int, at: int) -> None:
    if begin == end:
        return
    hours = f"{begin // 60:02}:{begin % 60:02}-{end // 60:02}:{end % 60:02}"
    now = datetime(2030, 1, 1) + timedelta(seconds=at)
    minute = at / 60
    inside = begin <= minute < end if begin < end else minute >= begin or minute < end
    wait = until_open([hours], now)
    assert (wait == 0) == inside
    if wait:
        assert until_open([hours], now + timedelta(seconds=wait + 0.01)) == 0
        assert until_open([hours], now + timedelta(seconds=wait / 2)) > 0


@pytest.mark.parametrize("hours", ["22-6", "25:00-06:00", "10:00-10:00", "10:00", "10:00-24:30", "late"])
def test_hours_that_are_none(hours: str) -> None:
    with pytest.raises(SettingError, match="hours must be"):
        LimitSettings(hours=(hours,))


def test_several_spans() -> None:
    assert until_open(["10:00-11:00", "14:00-24:00"], NOON) == 2 * 3600
    assert until_open("", NOON) == 0


def test_bytes_a_day_end_at_midnight_and_outlive_the_process() -> None:
    day = Day()
    gate = day.gate(bytes_a_day=1000)
    day.used = 600
    assert gate.holds() == ("", 0.0)
    again = Day()
    gate = again.gate(gate.keep(), bytes_a_day=1000)
    again.used = 400
    reason, wait = gate.holds()
    assert "1,000 of 1,000 bytes a day" in reason
    assert 12 * 3600 <= wait <= 12 * 3600 + 2
    again.now += timedelta(seconds=wait)
    assert gate.holds() == ("", 0.0)
    assert gate.today == 0
    again.used += 999
    assert gate.holds() == ("", 0.0)
    again.used += 1
    assert gate.holds()[0]


def test_a_command_says_yes_or_no_and_is_not_asked_all_the_time(tmp_path: Path) -> None:
    count = tmp_path / "count"
    script = f"open({str(count)!r}, 'a').write('x'); import sys; sys.exit(len(open({str(count)!r}).read()) % 2)"
    day = Day()
    gate = day.gate(allow=shlex.join([sys.executable, "-c", script]))
    assert "says no" in gate.holds()[0]
    assert "says no" in gate.holds()[0]
    assert count.read_text() == "x"
    day.now += timedelta(seconds=31)
    assert gate.holds() == ("", 0.0)
    assert count.read_text() == "xx"


def test_a_command_that_hangs_or_is_not_there_is_a_no(tmp_path: Path) -> None:
    gate = Day().gate(allow=shlex.join([sys.executable, "-c", "import time; time.sleep(60)"]), allow_seconds=0.2)
    assert "did not answer" in gate.holds()[0]
    assert "cannot be run" in Day().gate(allow=str(tmp_path / "none")).holds()[0]


@pytest.mark.parametrize(
    "given",
    [{"threads": 0}, {"memory": -1}, {"nice": 20}, {"bytes_a_day": -5}, {"allow": "a 'b"}, {"allow_seconds": 0.0}],
)
def test_what_cannot_be_is_refused(given: dict[str, object]) -> None:
    with pytest.raises(SettingError, match=str(next(iter(given.values())))):
        LimitSettings(**given)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux alone counts so")
def test_memory_beyond_the_bound_is_an_exception_and_the_process_lives_on() -> None:
    code = """
import torch
from fedpress.client.edge.limits import apply
from fedpress.settings.device import LimitSettings
from fedpress.common.errors import SettingError
try:
    apply(LimitSettings(memory=1, nice=0))
except SettingError as error:
    print(error)
apply(LimitSettings(memory=900, nice=3))
import os
print(os.nice(0) >= 3)
torch.ones(1000, 1000)
try:
    torch.ones(1000, 1000, 1000)
except RuntimeError as error:
    print("can't allocate" in str(error))
print(torch.ones(10).sum().item())
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = run.stdout.splitlines()
    assert lines[0].startswith("memory must be above the ")
    assert lines[1:] == ["True", "True", "10.0"]
