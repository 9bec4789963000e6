"""Waits: bounded, growing, spread."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpress.client.edge.backoff import Backoff
from fedpress.common.errors import SettingError
from fedpress.settings.device import PollingSettings


@settings(deadline=None)
@given(
    least=st.floats(0.001, 10),
    factor=st.floats(1, 1000),
    seed=st.integers(0, 2**32),
    steps=st.lists(st.sampled_from(["idle", "away", "busy", "refused"]), max_size=60),
)
def test_waits_stay_within_their_bounds(least: float, factor: float, seed: int, steps: list[str]) -> None:
    polling = PollingSettings(poll_min=least, poll_max=least * factor, backoff=least, backoff_max=least * factor)
    pace = Backoff(polling, random.Random(seed))
    most = least
    for step in steps:
        if step == "busy":
            pace.busy()
            most = least
        elif step == "idle":
            assert 0 < pace.idle() <= polling.poll_max
            most = least
        elif step == "away":
            assert 0 <= pace.away() <= min(most, polling.backoff_max)
            most *= 2
        else:
            assert 0.9 * polling.refused <= pace.refused() <= polling.refused


def test_work_makes_it_ask_soon_again() -> None:
    pace = Backoff(PollingSettings(poll_min=0.1, poll_max=3.0), random.Random(0))
    waits = [pace.idle() for _ in range(20)]
    assert waits[0] <= 0.1
    assert waits[-1] > 2.5
    pace.busy()
    assert pace.idle() <= 0.1


def test_nodes_do_not_come_back_together() -> None:
    waits = {Backoff(PollingSettings(), random.Random(seed)).away() for seed in range(40)}
    assert min(waits) < 0.2
    assert max(waits) > 0.8
    assert len(waits) == 40


@pytest.mark.parametrize(
    "given", [{"poll_min": 0.0}, {"poll_max": 0.01}, {"backoff": -1.0}, {"backoff_max": 0.5}, {"heartbeat": 5.0}]
)
def test_what_cannot_be_is_refused(given: dict[str, float]) -> None:
    with pytest.raises(SettingError, match=str(next(iter(given.values())))):
        PollingSettings(**given)
