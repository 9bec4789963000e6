"""Laws of a federation whose nodes have widths of one model."""

from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedpress.common.errors import SettingError
from fedpress.compression.model.narrow import narrow
from fedpress.server.run.recorder import Recorder
from fedpress.settings import RunSettings
from fedpress.simulations.run import run, settings_of
from fedpress.simulations.settings import resolve
from fedpress.simulations.workloads import task

from .conftest import SETTINGS, SIZES, STATELESS


@pytest.mark.slow
def test_one_group_of_all_is_a_federation_without_groups(federate) -> None:
    plain, whole = federate("plain"), federate("whole", groups=[{"width": 1.0, "share": 1.0}])
    assert plain.model == whole.model
    assert [{k: v for k, v in row.items() if k != "groups"} for row in whole.rows] == plain.rows
    assert all(row["groups"]["1"]["accuracy"] == row["accuracy"] for row in whole.rows)


def test_small_devices_send_and_get_less_and_are_sampled_as_all_others_are(federate) -> None:
    plain, mixed = federate("plain"), federate("mixed", **SIZES)
    asked = [[(visit["round"], visit["node"]) for visit in finished.visits] for finished in (plain, mixed)]
    assert asked[0] == asked[1]
    groups = {visit["node"]: mixed.group(visit["node"]) for visit in mixed.visits}
    assert set(groups.values()) == {"1", "0.25"}
    for column in ("up_frame", "down_frame"):
        spent = {name: [int(v[column]) for v in mixed.visits if groups[v["node"]] == name] for name in ("1", "0.25")}
        assert 0 < np.mean(spent["0.25"]) < np.mean(spent["1"])
    for way in ("uplink", "downlink"):
        assert mixed.result["totals"][f"{way}_bytes"] < plain.result["totals"][f"{way}_bytes"]
    # Each group's model is there, and is one that its devices can run.
    (last,) = mixed.rows[-1:]
    assert last["groups"]["1"]["accuracy"] == last["accuracy"]
    small = narrow(task(RunSettings.from_config(mixed.result["config"])).model(), 0.25)
    held = load_file(mixed.folder / "model-0.25.safetensors")
    assert {name: array.shape for name, array in held.items()} == {
        n: tuple(t.shape) for n, t in small.state_dict().items()
    }


WAYS = [
    pytest.param(
        {
            "groups": [{"width": 0.5, "share": 0.5}, {"width": 0.25, "share": 0.5}],
            "strategy": "FedAvgM",
            "strategy.server-momentum": 0.5,
        },
        marks=pytest.mark.slow,
    ),
    {**SIZES, **STATELESS, "slices": "importance", "reorder": 2},
    pytest.param({**SIZES, "fraction-evaluate": 0.2, "holdout": 0.2, "exclude": "4.bias"}, marks=pytest.mark.slow),
]


@pytest.mark.parametrize("way", WAYS, ids=["no whole model", "importance", "shares"])
def test_bits_are_the_same_for_any_number_of_workers_and_after_a_resume(
    way: dict[str, Any], federate, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = federate("whole", **way)
    assert whole.rows[-1]["accuracy"] > whole.result["initial"]["accuracy"]
    record = Recorder.__call__

    def falls(self: Recorder, done: Any) -> None:
        record(self, done)
        if done.number == 2:  # before its checkpoint: it is gone through again
            raise KeyboardInterrupt

    out = {"out": str(tmp_path / "parts"), "workers": 1}
    monkeypatch.setattr(Recorder, "__call__", falls)
    with pytest.raises(KeyboardInterrupt):
        run(resolve({**SETTINGS, **way, **out}))
    monkeypatch.setattr(Recorder, "__call__", record)
    run(settings_of({**out, "resume": True}))
    assert (tmp_path / "parts" / "model.safetensors").read_bytes() == whole.model


def test_a_run_resumes_with_the_same_groups_only(federate, tmp_path) -> None:
    federate("run", **SIZES)
    with pytest.raises(SettingError, match=r"^groups must be"):
        settings_of({"out": str(tmp_path / "run"), "resume": True, "groups": [{"width": 1.0, "share": 1.0}]})


@pytest.mark.slow
def test_both_engines_give_the_same_bits(federate) -> None:
    here, there = federate("here", **SIZES), federate("there", **SIZES, engine="ray")
    assert here.model == there.model
    assert here.rows == there.rows
