"""What others wrote, beside the candidates: SecAgg+ is really run, NNCodec is asked on one real update."""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from fedpress.compression.errors import SettingError
from fedpress.server.record import MODEL, TRAFFIC
from fedpress.simulations.bench import peer
from fedpress.simulations.compare import beside as module
from fedpress.simulations.compare.candidates import read_candidates
from fedpress.simulations.compare.cells import plan
from fedpress.simulations.compare.runner import Done
from fedpress.simulations.compare.secagg import measure

MODEL_OF = {"weight": np.ones((50, 40), np.float32), "bias": np.zeros(40, np.float32), "steps": np.array(3)}


def test_secure_aggregation_is_counted_in_its_own_messages() -> None:
    """If there is none, flwr has moved its older interface, which `simulations/compare/secagg.py` touches."""
    cost = measure(MODEL_OF, 5)
    assert cost is not None, f"flwr {version('flwr')} has moved SecAggPlusWorkflow"
    assert (cost.nodes, cost.plain) == (5, 4 * 2040)
    assert cost.down > cost.plain, "the model as float32, and keys and shares"
    assert cost.up > 2 * cost.plain, "flwr sends masked integers in eight bytes"
    twice = measure({"weight": np.ones((100, 40), np.float32)}, 5)
    assert twice is not None
    # What does not grow with the model is keys and shares.
    assert (twice.up - cost.up) / (twice.plain - cost.plain) == pytest.approx(2.0, abs=0.02)


def done_of(folder: Path, codecs: str) -> list[Done]:
    from safetensors.numpy import save_file

    folder.mkdir()
    save_file(MODEL_OF, folder / MODEL)
    rows = "".join(f"{number},{node},1,1,1,1,1,1,1\n" for number in (1, 2) for node in range(4))
    head = "round,node,down_frame,down_message,up_frame,up_message,examples,training_seconds,coding_seconds\n"
    (folder / TRAFFIC).write_text(head + rows)
    cells = plan(read_candidates(codecs), ["digits"], [0], {"clients": 10, "per-round": 4})
    return [Done(cell, folder, {"rounds": []}) for cell in cells]


def test_what_is_beside_is_of_the_runs_own_model_and_measured_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = done_of(tmp_path / "cell", "none; fp16")
    rows = module.beside(done, tmp_path, None)
    assert [(row["workload"], row["nodes"], row["plain"]) for row in rows["secagg"]] == [("digits", 4, 4 * 2040)]
    assert rows["nncodec"] == []
    assert len(json.loads((tmp_path / "secagg.json").read_text())) == 1
    monkeypatch.setattr(module, "measure", None)
    assert module.beside(done, tmp_path, None) == rows


def test_nncodec_is_held_against_each_codec_at_its_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = [peer.Point(qp, 0.0, size, error, 1.0, 1.0) for qp, size, error in ((1, 1000, 0.2), (2, 4000, 0.02))]
    monkeypatch.setattr(module, "sweep", lambda *_: points)
    monkeypatch.setattr(module, "run", lambda *_, **__: points[:1])
    done = done_of(tmp_path / "cell", "none; fast(nmse=0.1); randk(0.01)")
    rows = {row["codec"]: row for row in module.beside(done, tmp_path, tmp_path / "python")["nncodec"]}
    assert rows["NNCodec's default"]["bytes"] == 1000
    assert rows["none"]["nncodec"] is None
    assert 1000 < rows["fast(nmse=0.1)"]["nncodec"] < 4000
    assert rows["randk(0.01)"]["nncodec"] is None, "beyond what NNCodec was asked, nothing is extrapolated"


def test_a_python_without_nncodec_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="no-python"):
        module.beside(done_of(tmp_path / "cell", "none"), tmp_path, tmp_path / "no-python")
