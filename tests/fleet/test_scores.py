"""Laws of a federation whose nodes share what their models say, and no weights (FedMD)."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, RecordDict
from safetensors.numpy import load_file
from torch import nn

from fedpress.client.memory import Memory
from fedpress.client.scores import keep, recall
from fedpress.client.training import loss_of
from fedpress.compression.errors import SettingError
from fedpress.compression.message import LOSSLESS
from fedpress.server.fleet.build import build_student
from fedpress.simulations.run import run, settings
from fedpress.simulations.settings import resolve

from .conftest import SETTINGS

SCORES = {"share": "scores", "distil-proxy": 150, "distil-steps": 60, "clients": 12, "per-round": 4}
EXCHANGED = 150 * 10 * 4  # bytes of what is shared: a score for each class of each public input


def test_only_scores_travel_and_models_learn_of_each_other(federate) -> None:
    run = federate("run", **SCORES, groups="1:0.5,0.25:0.5", up=LOSSLESS, down=LOSSLESS)
    for visit in run.visits:
        assert int(visit["up_frame"]) == pytest.approx(EXCHANGED, abs=200)
        assert int(visit["down_frame"]) == pytest.approx(EXCHANGED, abs=200)
    assert run.rows[-1]["accuracy"] > run.result["initial"]["accuracy"] + 0.1
    assert load_file(run.folder / "model.safetensors")["1.weight"].shape == (128, 64)  # the student's


def test_a_node_goes_on_from_its_own_model(federate, tmp_path, monkeypatch) -> None:
    def noted(state) -> dict[str, torch.Tensor]:
        own = recall(state)
        with (tmp_path / "recalled").open("a", encoding="utf-8") as file:
            file.write(f"{len(own)}\n")
        return own

    monkeypatch.setattr("fedpress.client.app.recall", noted)
    federate("run", **{**SCORES, "clients": 2, "per-round": 2, "rounds": 2, "workers": 1})
    counts = [int(line) for line in (tmp_path / "recalled").read_text(encoding="utf-8").split()]
    assert counts[:2] == [0, 0]
    assert len(counts) == 4
    assert all(counts[2:])


def test_what_is_kept_of_a_model_outlives_the_memory_of_the_mod() -> None:
    state = RecordDict()
    keep(ArrayRecord({"w": Array(np.ones(3, np.float32))}), state)
    before = set(state)
    Memory(own=ArrayRecord({"w": Array(np.zeros(3, np.float32))})).save(state)
    assert before.isdisjoint(set(state) - before)
    Memory().save(state)
    assert set(state) == before
    assert recall(state)["w"].tolist() == [1.0] * 3


def test_bits_are_the_same_for_any_number_of_workers_and_when_a_run_goes_on(federate, tmp_path, monkeypatch) -> None:
    from fedpress.server.record import Recorder

    whole = federate("whole", **SCORES)
    assert sum(row["uplink_bytes"] for row in whole.rows) < 12 * EXCHANGED / 3  # coded as models are
    record = Recorder.__call__

    def falls(self, done) -> None:
        record(self, done)
        if done.number == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Recorder, "__call__", falls)
    out = {"out": str(tmp_path / "parts"), "workers": 1}
    with pytest.raises(KeyboardInterrupt):
        run(resolve({**SETTINGS, **SCORES, **out}))
    monkeypatch.setattr(Recorder, "__call__", record)
    run(settings({**out, "resume": True}, None))
    assert (tmp_path / "parts" / "model.safetensors").read_bytes() == whole.model


@pytest.mark.parametrize(
    ("others", "why"),
    [
        ({"stateless": True}, "stateless is false"),
        ({"distil": True}, "distil works on weights"),
        ({"sparsify": "gradual"}, "sparsify works on weights"),
        ({"personal": "head"}, "personal works on weights"),
        ({"distil-source": "noise"}, "makes them up"),
        ({"share": "gradients"}, "gradients"),
        ({"groups": "1:0.5,0.25:0.5", "slices": "rolling"}, "slices are nested"),
    ],
)
def test_what_does_not_go_with_scores_is_refused_before_the_run(others: dict[str, object], why: str) -> None:
    with pytest.raises(SettingError, match=why):
        resolve({**SCORES, **others})


@pytest.mark.parametrize("proxy", [None, SimpleNamespace(x=torch.zeros(0, 4))])
def test_a_task_without_public_inputs_is_refused_in_a_line(proxy: object) -> None:
    task = SimpleNamespace(initial=dict, **({"proxy": proxy} if proxy else {}))
    with pytest.raises(SettingError, match=r"SimpleNamespace has none, its proxy\.x holds at least one"):
        build_student({"share": "scores", "seed": 0, "device": "cpu"}, task)


def test_the_loss_of_certain_chances_is_that_of_the_class() -> None:
    scores = torch.randn(8, 5, 4)
    targets = torch.randint(4, (8, 5))
    chances = nn.functional.one_hot(targets, 4).float()
    assert float(loss_of(scores, chances)) == pytest.approx(float(loss_of(scores, targets)), rel=1e-6)
    assert np.isfinite(float(loss_of(scores[:, 0], chances[:, 0])))
