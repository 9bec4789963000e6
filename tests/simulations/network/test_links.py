"""Links are held to their formulas, a measured one to the area under its bandwidth."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpress.common.errors import DataError, SettingError
from fedpress.settings.network import LinkSettings
from fedpress.simulations.network.links import LINKS, Link, Trace, find_link
from fedpress.simulations.settings import resolve

PLAIN = Link("plain", down=8000.0, up=4000.0, latency=0.5, source="made up", payload=100, overhead=10)


def test_a_message_takes_what_the_formula_says() -> None:
    assert PLAIN.seconds("down", 1000) == 0.5 + 8 * (1000 + 10 * 10) / 8000
    assert PLAIN.seconds("up", 1001) == 0.5 + 8 * (1001 + 11 * 10) / 4000
    assert PLAIN.seconds("up", 0) == 0.0
    assert find_link(LinkSettings("4g", loss=0.5, payload=100, overhead=0)).bits(1000) == 16000


def test_what_may_send_one_per_cent_of_the_time_takes_a_hundred_times_as_long() -> None:
    lora = LINKS["lora"]
    bits = 8 * (222 + 13)
    assert lora.seconds("up", 222) == pytest.approx(lora.latency + 100 * bits / 5470)
    # A radio spends power while it sends, and none while it waits for its turn.
    assert lora.joules("up", 222) == pytest.approx(0.0957 * bits / 5470, rel=1e-3)


def test_energy_is_power_by_time() -> None:
    link = LINKS["wifi"]
    assert link.joules("down", 1460) == pytest.approx((0.13286 + 0.13701 * 30) * 8 * 1500 / 30e6)
    assert LINKS["dsl"].joules("down", 1460) is None


@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.floats(0, 40), st.integers(1, 200))
def test_a_message_on_a_trace_ends_when_its_bits_have_passed(rates: list[int], start: float, bits: int) -> None:
    """Held against a walk through the trace second by second; a second is as long as the first axis says."""
    if not any(rates):
        return
    trace = Trace(tuple(map(float, range(len(rates) + 1))), tuple(map(float, rates)), tuple(map(float, rates)))
    now, left = start, float(bits)
    while left > 1e-12:
        rate, until = rates[int(now + 1e-12) % len(rates)], math.floor(now + 1e-12) + 1.0
        if rate and left <= rate * (until - now):
            now += left / rate
            break
        left -= rate * (until - now)
        now = until
    assert trace.finish("up", start, bits) == pytest.approx(now, abs=1e-6)


def test_a_constant_trace_is_a_link_of_that_bandwidth(tmp_path: Path) -> None:
    file = tmp_path / "trace.csv"
    file.write_text("seconds,up,down,latency\n0,4000,8000,0.4\n7,4000,8000,0.6\n9,0,0,0.5\n")
    link = find_link(LinkSettings(f"trace:{file}"))
    for nbytes, start in ((10, 0.0), (1000, 3.3), (100000, 8.9)):
        for way in ("up", "down"):
            plain = 0.5 + link.bits(nbytes) / getattr(PLAIN, way)
            assert link.seconds(way, nbytes, start) == pytest.approx(plain)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seconds,up\n0,1\n1,1\n", "columns seconds, down, up"),
        ("seconds,up,down\n0,1,1\n", "at least two rows"),
        ("seconds,up,down\n1,1,1\n2,1,1\n", "rise from 0"),
        ("seconds,up,down\n0,1,1\n0,1,1\n", "rise from 0"),
        ("seconds,up,down\n0,0,1\n1,0,1\n", "not all 0"),
        ("seconds,up,down\n0,-1,1\n1,4,1\n", "at least 0"),
        ("seconds,up,down\n0,fast,1\n1,1,1\n", "fast"),
        ("seconds,up,down\n0,1,1\n1,inf,1\n2,1,1\n", "must be finite"),
        ("seconds,up,down\n0,1,1\nnan,1,1\n", "must be finite"),
    ],
)
def test_a_file_that_is_no_trace_is_said_to_be_none(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "trace.csv"
    file.write_text(text)
    with pytest.raises(DataError, match=says) as caught:
        find_link(LinkSettings(f"trace:{file}"))
    assert str(file) in str(caught.value)


def test_a_wrong_link_gets_one_clear_line(tmp_path: Path) -> None:
    for changed, says in (
        ({"link": "4gg"}, "unknown link '4gg'"),
        ({"link.speed": 3}, "unknown setting 'link.speed'"),
        ({"loss": "much"}, "loss must be a number, got 'much'"),
        ({"loss": 1.0}, "loss must be at least 0 and below 1, got 1"),
        ({"duty": 0.0}, "duty must be above 0"),
        ({"latency": math.inf}, "latency must be a finite number"),
        ({"link": "trace:there.csv", "link.up": 5.0}, "up must be left to the trace"),
    ):
        with pytest.raises(SettingError, match=says):
            resolve(changed)
    with pytest.raises(DataError, match="no trace"):
        find_link(LinkSettings(f"trace:{tmp_path / 'gone.csv'}"))


def test_every_link_has_a_source_and_is_found_by_its_name() -> None:
    for name, link in LINKS.items():
        assert find_link(LinkSettings(name)) is link
        assert len(link.source) > 20
        assert np.isfinite(link.seconds("up", 10**6))
