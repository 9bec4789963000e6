"""`bench engine` runs, and its ratios are of the contenders that it lists."""

import pytest

from fedpress.simulations.bench.engine import bench_engine
from fedpress.simulations.workloads.fashion import DEBIAN


@pytest.mark.slow
@pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs Debian's dataset-fashion-mnist")
def test_the_contenders_finish_and_are_compared() -> None:
    notes: list[str] = []
    result = bench_engine(rounds=2, repeats=1, ray=False, model="cnn", note=notes.append)
    trained = {row["name"]: row for row in result["train"]["contenders"]}
    assert set(trained) == {"bare-1", "bare-2", "inprocess-1", "inprocess-2"}
    assert all(
        row["round_seconds"] > 0 and row["startup_seconds"] > 0 and row["peak_bytes"] > 0 for row in trained.values()
    )
    ratio = trained["inprocess-2"]["round_seconds"] / trained["bare-2"]["round_seconds"]
    assert result["train"]["ratios"]["inprocess-2 / bare-2, a round"] == pytest.approx(ratio)
    assert len(notes) == 8
