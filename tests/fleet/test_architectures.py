"""Laws of a federation whose nodes have models of several architectures."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedpress.compression.submodels import Slice
from fedpress.extensions.distillation.distillation import DistillationContext, DistilledModel
from fedpress.extensions.distillation.group_distillation import distil_groups
from fedpress.extensions.mixed_fleet.settings import GroupSettings
from fedpress.server.messaging.node_evaluation import ModelScore

from .conftest import SIZES

WORKLOAD = "fedpress_test_twins:twins"
BOTH = {"workload": WORKLOAD, "groups": [{"model": "mlp", "share": 0.5}, {"model": "slim", "share": 0.5}]}
TEACH = {"distillation.enabled": True, "proxy-examples": 300, "guard-examples": 200, "distillation.steps": 20}


def teachers(row: dict[str, Any]) -> int:
    """All nodes of a round are teachers, whatever their architecture, and from round 2 on the previous model."""
    return row["clients"] + (row["round"] > 1)


@pytest.fixture(autouse=True)
def _twins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the workload importable by its name, in workers too."""
    folder = tmp_path / "importable"
    folder.mkdir()
    shutil.copy(Path(__file__).with_name("twins.py"), folder / "fedpress_test_twins.py")
    monkeypatch.syspath_prepend(folder)


@pytest.mark.slow
def test_one_architecture_is_a_federation_without_groups(federate) -> None:
    plain, one = federate("plain"), federate("one", groups=[{"model": "mlp", "share": 1.0}])
    assert plain.model == one.model
    assert [{k: v for k, v in row.items() if k != "groups"} for row in one.rows] == plain.rows


@pytest.mark.slow
def test_each_architecture_is_averaged_separately(federate) -> None:
    """With the same nodes in a group, its model does not depend on what the others have."""
    both = federate("both", **BOTH)
    groups = {visit["node"]: both.group(visit["node"]) for visit in both.visits}
    assert set(groups.values()) == {"mlp", "slim"}
    assert both.rows[-1]["accuracy"] == both.rows[-1]["groups"]["mlp"]["accuracy"]
    for name, inner in (("mlp", 128), ("slim", 24)):
        held = load_file(both.folder / f"model-{name}.safetensors")
        assert held["1.weight"].shape == (inner, 64)
        assert both.rows[-1]["groups"][name]["accuracy"] > both.result["initial"]["accuracy"]
    swapped = federate(
        "swapped", workload=WORKLOAD, groups=[{"model": "mlp", "share": 0.5}, {"model": "mlp2", "share": 0.5}]
    )
    assert (swapped.folder / "model-mlp.safetensors").read_bytes() == (
        both.folder / "model-mlp.safetensors"
    ).read_bytes()


def test_each_architecture_is_distilled_from_all_with_the_same_bits(federate) -> None:
    taught, again = federate("taught", **BOTH, **TEACH), federate("again", **BOTH, **TEACH, workers=1)
    assert taught.model == again.model
    assert taught.rows == again.rows
    for row in taught.rows:
        said = row["distillation"]["groups"]
        assert set(said) == {"mlp", "slim"}
        assert row["distilled"] == any(facts["taken"] for facts in said.values())
        assert {facts["teachers"] for facts in said.values()} == {teachers(row)}
    assert any(row["distilled"] for row in taught.rows)


def test_the_whole_model_is_distilled_from_all_widths(federate) -> None:
    taught = federate("taught", **SIZES, **TEACH)
    assert all(row["distillation"]["teachers"] == teachers(row) for row in taught.rows)
    assert any(row["distilled"] for row in taught.rows)


def test_a_group_that_did_not_get_better_is_left_as_it_is() -> None:
    whole = {"a/w": np.zeros(2, np.float32), "b/w": np.ones(3, np.float32)}
    slices = {name: Slice({"w": f"{name}/w"}, {}) for name in "ab"}
    asked: list[Any] = []

    def better(averaged, updates, rng, teaching):
        taught = {"w": averaged["w"] + 5}
        teaching.ask([averaged, taught])
        return DistilledModel(taught, {"taken": True})

    def worse(averaged, updates, rng, teaching):
        return DistilledModel(averaged)

    def ask(models):
        asked.append(models)
        return [ModelScore(1.0, 0.5) for _ in models]

    rng, teaching = np.random.default_rng(0), DistillationContext(ask)
    assert distil_groups({"a": worse, "b": worse}, slices, whole, [], rng, teaching).model is whole
    result = distil_groups({"a": better, "b": worse}, slices, whole, [], rng, teaching)
    after = result.model
    assert after["a/w"].tolist() == [5, 5]
    assert after["b/w"] is whole["b/w"]
    assert result.facts["groups"]["a"] == {"taken": True}
    # Nodes judge all groups' models together, one of them taught.
    ((before, taught),) = asked
    assert before.keys() == taught.keys() == whole.keys()
    assert taught["a/w"].tolist() == [5, 5]


def test_groups_have_the_names_of_their_models() -> None:
    assert [GroupSettings(model=name).name for name in ("cnn", "lenet")] == ["cnn", "lenet"]
