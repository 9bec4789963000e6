"""Whole sparse runs: the wanted sparsity, fewer bytes, and the same bits on each engine."""

from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from fedpress.extensions.sparsity.layer_densities import share_pruned
from fedpress.simulations.run import run
from fedpress.simulations.settings import resolve

SETTINGS = {
    **{"rounds": 5, "clients": 8, "per-round": 4, "seed": 3, "local-epochs": 1},
    **{"sparsity.target": 0.8, "first-round": 1, "last-round": 3, "sparsity.every": 1},
    **{"up": "ef | deadzone(nmse=0.1) | ans", "down": "deadzone(nmse=0.1) | ans"},
}


def outcome(folder: Path, **settings: object) -> tuple[bytes, list[dict[str, Any]]]:
    """Return the final model's file and the rounds, without what differs from run to run."""
    result = run(resolve({**SETTINGS, "out": str(folder), **settings}))
    varies = ("seconds", "uplink_message_bytes", "downlink_message_bytes")
    rows = [{key: value for key, value in row.items() if key not in varies} for row in result["rounds"]]
    return (folder / "model.safetensors").read_bytes(), rows


def test_a_run_becomes_as_sparse_as_was_asked_for(tmp_path: Path) -> None:
    one = outcome(tmp_path / "one", workers=1)
    _, rows = one
    assert [row["failures"] for row in rows] == [0] * 5
    shares = [row["pruned"] for row in rows]
    assert shares[2:] == pytest.approx([0.8] * 3, abs=0.001)
    assert share_pruned(load_file(tmp_path / "one" / "model.safetensors")) == shares[-1]
    assert rows[-1]["uplink_bytes"] < 0.6 * rows[0]["uplink_bytes"]
    assert rows[-1]["accuracy"] > 0.7
    assert outcome(tmp_path / "two", workers=2, tensors="head") != one
    assert outcome(tmp_path / "three", workers=2) == one


@pytest.mark.slow
def test_on_both_engines(tmp_path: Path) -> None:
    settings = {"tensors": "head", "workers": 2}
    assert outcome(tmp_path / "here", **settings) == outcome(tmp_path / "there", engine="ray", **settings)
