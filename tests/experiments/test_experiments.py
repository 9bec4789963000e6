"""The measurements that are not shipped: SecAgg+ is really run, and NNCodec is compared at the error of each codec."""

import math
from dataclasses import asdict
from pathlib import Path

import baselines
import nncodec
import numpy as np
import pytest
import secagg
from safetensors.numpy import load_file

from fedpress.common.errors import SettingError
from fedpress.simulations.bench.codec import measure
from fedpress.simulations.settings import resolve

ROOT = Path(__file__).parents[2]
UPDATES = ROOT / "tests" / "data" / "updates"

MODEL = {"weight": np.ones((50, 40), np.float32), "bias": np.zeros(40, np.float32), "steps": np.array(3)}


def point(nmse: float, size: int) -> nncodec.Point:
    return nncodec.Point(qp=0, lambda_scale=0.0, bytes=size, nmse=nmse, encode=1.0, decode=1.0)


def test_the_hull_is_below_its_points_and_goes_no_further() -> None:
    points = [point(0.01, 1000), point(0.1, 500), point(0.1, 900), point(1.0, 100), point(0.3, 490)]
    assert nncodec.bytes_at(points, 0.1) == 500
    assert nncodec.bytes_at(points, math.sqrt(0.1 * 0.01)) == pytest.approx(750)
    assert nncodec.bytes_at(points, 0.3) < 490
    assert nncodec.bytes_at(points, 0.001) is None
    assert nncodec.near(points, 0.11).bytes == 500
    update = load_file(UPDATES / "digits.safetensors")
    rows = [asdict(measure(f"{name}(nmse=0.1)", update, 1)) for name in ("best", "fast")]
    (row,) = [row for row in nncodec.targets(update, rows, points, points[:4]) if row["nmse"] == 0.1]
    assert row["best_bytes"] == rows[0]["bytes"] / 500


def test_secure_aggregation_is_counted_in_its_own_messages() -> None:
    cost = secagg.measure(MODEL, 5)
    assert (cost.nodes, cost.plain) == (5, 4 * 2040)
    assert cost.down > cost.plain, "the model as float32, and keys and shares"
    assert cost.up > 2 * cost.plain, "flwr sends masked integers in eight bytes"
    twice = secagg.measure({"weight": np.ones((100, 40), np.float32)}, 5)
    # What does not grow with the model is keys and shares.
    assert (twice.up - cost.up) / (twice.plain - cost.plain) == pytest.approx(2.0, abs=0.02)


def test_nncodec_is_compared_at_the_error_of_each_codec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = [point(0.2, 1000), point(0.02, 4000)]
    monkeypatch.setattr(baselines, "sweep", lambda *_: points)
    monkeypatch.setattr(baselines, "run", lambda *_, **__: points[:1])
    update = baselines.first_update(resolve({"workload": "digits"}))
    specs = ["none", "fast(nmse=0.1)", "randk(0.01)"]
    rows = {row["codec"]: row for row in baselines.compare(update, specs, tmp_path / "python", tmp_path)}
    assert rows["NNCodec's default"]["bytes"] == 1000
    assert rows["none"]["nncodec"] is None
    assert 1000 < rows["fast(nmse=0.1)"]["nncodec"] < 4000
    assert rows["randk(0.01)"]["nncodec"] is None, "beyond the errors that were measured, nothing is extrapolated"


def test_a_python_without_nncodec_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="no-python"):
        nncodec.sweep(tmp_path / "no-python", MODEL, tmp_path)
