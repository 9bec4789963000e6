"""The same seed gives the same bits: for any number of workers, for two runs in a row, and on both engines."""

from pathlib import Path

import pytest

from fedpress.simulations.run import run
from fedpress.simulations.settings import resolve

SETTINGS = {"rounds": 3, "per-round": 5, "clients": 20, "seed": 3, "up": "ef | topk(0.1) | uniform(4) | ans"}


def outcome(folder: Path, **settings: str | int) -> tuple[bytes, list[dict[str, float]]]:
    """Return the final model's file and the rounds, without what differs from run to run."""
    result = run(resolve({**SETTINGS, "out": str(folder), **settings}))
    varies = ("seconds", "uplink_message_bytes", "downlink_message_bytes")
    rows = [{key: value for key, value in row.items() if key not in varies} for row in result["rounds"]]
    return (folder / "model.safetensors").read_bytes(), rows


def test_for_any_number_of_workers_and_twice_in_a_row(tmp_path: Path) -> None:
    one = outcome(tmp_path / "one", workers=1)
    two = outcome(tmp_path / "two", workers=2)
    again = outcome(tmp_path / "again", workers=2)
    assert one == two == again
    assert outcome(tmp_path / "other", workers=2, seed=4) != one


@pytest.mark.slow
def test_on_both_engines(tmp_path: Path) -> None:
    here = outcome(tmp_path / "here", workers=2)
    there = outcome(tmp_path / "there", workers=2, engine="ray")
    assert here == there
