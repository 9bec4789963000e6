"""A plan is JSON that makes the smaller model of the workload's own, and says in a line what is wrong with it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fedpress.common.errors import PlanError
from fedpress.compression.model import factor_layers, prune_choice, weight_sharing
from fedpress.compression.model.plan import KINDS, Plan
from fedpress.compression.model.step import Step
from fedpress.simulations.workloads import models

from .conftest import CASES, made

LAYERS = {
    "prune": {"0": {"out": [0, 3, 5], "in": None}, "3": {"out": None, "in": [0, 3, 5]}},
    "factorise": {"3": {"by": "spatial", "rank": 3}, "7": {"by": "svd", "rank": 20}},
    "share": {"7.0": {"clusters": 16}, "7.1": {"clusters": 30}},
}


def plan(**layers: Any) -> dict[str, Any]:
    return {"schema": 1, "steps": [{"kind": kind, "layers": value} for kind, value in layers.items()]}


def steps() -> list[Step]:
    """One of every kind, chosen for a model that all suit, one after another."""
    model, x = made(CASES["residual"])
    batches = [(x, torch.arange(len(x)))]
    chosen: list[Step] = []
    for choose in (
        lambda m: prune_choice.choose(m, x, 0.3, "taylor", batches),
        lambda m: factor_layers.choose(m, "svd", 0.5),
        lambda m: weight_sharing.choose(m, 4),
    ):
        chosen.append(choose(Plan(tuple(chosen)).apply(model)).step)
    return chosen


def test_every_kind_of_step_is_tried_here() -> None:
    assert {step.kind for step in steps()} == set(KINDS) == set(LAYERS)


def test_a_plan_is_read_back_and_builds_a_model_for_its_weights(tmp_path: Path) -> None:
    model, x = made(CASES["residual"])
    wanted = Plan(tuple(steps()))
    wanted.write(tmp_path / "plan.json")
    again = Plan.read(tmp_path / "plan.json")
    assert again == wanted
    small, room = wanted.apply(model), again.build(made(CASES["residual"])[0])
    assert {name: tensor.shape for name, tensor in small.state_dict().items()} == {
        name: tensor.shape for name, tensor in room.state_dict().items()
    }
    room.load_state_dict(small.state_dict())  # strict
    assert torch.equal(room.eval()(x), small.eval()(x))


def test_applying_a_plan_does_not_change_the_model() -> None:
    model, _ = made(CASES["cnn"])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    made_of = Plan.of(plan(**LAYERS))
    made_of.apply(model)
    made_of.build(model)
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_no_steps_make_the_model_itself() -> None:
    model, x = made(CASES["cnn"])
    assert torch.equal(Plan.of(plan()).apply(model)(x), model(x))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "schema 1"),
        ({"schema": 2, "steps": []}, "schema 1"),
        ({"schema": 1}, "steps"),
        ({"schema": 1, "steps": [3]}, "steps"),
        ({"schema": 1, "steps": [{"kind": "prone", "layers": {}}]}, "'prune'"),
        ({"schema": 1, "steps": [{"kind": "prune", "layers": {}, "more": 1}]}, "nothing else"),
        (plan(prune={}), "not empty"),
        (plan(prune={"0": {"out": [0]}}), "in, out"),
        (plan(prune={"0": {"out": [], "in": None}}), "whole numbers"),
        (plan(prune={"0": {"out": [1, 1], "in": None}}), "ascending"),
        (plan(prune={"0": {"out": [-1], "in": None}}), "-1"),
        (plan(prune={"0": {"out": [0.5], "in": None}}), "0.5"),
        (plan(prune={"0": {"out": [True], "in": None}}), "True"),
        (plan(factorise={"7": {"by": "svdd", "rank": 1}}), "'svd'"),
        (plan(factorise={"7": {"by": "svd", "rank": 0}}), "at least 1"),
        (plan(factorise={"7": {"by": ["svd"], "rank": 1}}), "svd"),
        (plan(share={"7": {"by": "values", "clusters": 4}}), "clusters"),
        (plan(share={"7": {"clusters": 0}}), "at least 1"),
    ],
)
def test_an_invalid_plan_gets_one_line(data: Any, said: str) -> None:
    with pytest.raises(PlanError) as error:
        Plan.of(json.loads(json.dumps(data)))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (plan(prune={"99": {"out": [0], "in": None}}), "'99'"),
        (plan(prune={"": {"out": [0], "in": None}}), "''"),
        (plan(prune={"1": {"out": [0], "in": None}}), "ReLU"),
        (plan(prune={"0": {"out": [0, 8], "in": None}}), "8 outputs"),
        (plan(prune={"7": {"out": None, "in": [256]}}), "256 inputs"),
        (plan(factorise={"99": {"by": "svd", "rank": 1}}), "'99'"),
        (plan(factorise={"7": {"by": "spatial", "rank": 1}}), "spatial"),
        (plan(factorise={"7": {"by": "svd", "rank": 111}}), "110"),
        (plan(factorise={"3": {"by": "spatial", "rank": 10**12}}), "40"),
        (plan(share={"1": {"clusters": 4}}), "ReLU"),
        (plan(share={"7": {"clusters": 257}}), "256"),
        (plan(share={"0": {"clusters": 4}}, prune={"0": {"out": [0], "in": None}}), "before"),
    ],
)
@pytest.mark.parametrize("way", ["apply", "build"])
def test_a_plan_of_another_model_gets_one_line(data: Any, said: str, way: str) -> None:
    read = Plan.of(data)
    with pytest.raises(PlanError) as error:
        getattr(read, way)(models.cnn(0.0))
    assert said in str(error.value)
    assert str(error.value).count("\n") == 0


def test_grouped_convolutions_lose_equally_many_channels_of_each_group() -> None:
    model = nn.Sequential(nn.Conv2d(8, 8, 3, groups=2), nn.Conv2d(4, 4, 3, groups=4))
    kept = Plan.of(plan(prune={"0": {"out": [0, 1, 6, 7], "in": [0, 5]}, "1": {"out": [1, 2], "in": None}})).apply(
        model
    )
    assert [tuple(p.shape) for p in kept.parameters() if p.dim() > 1] == [(4, 1, 3, 3), (2, 1, 3, 3)]
    for sides in ({"out": [0, 1, 2, 7], "in": None}, {"out": None, "in": [0]}):
        with pytest.raises(PlanError, match="2 groups"):
            Plan.of(plan(prune={"0": sides})).apply(model)
    with pytest.raises(PlanError, match="depthwise"):
        Plan.of(plan(prune={"1": {"out": [0], "in": [1]}})).apply(model)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\xff", '{"schema": 1, "steps": [{}]}'])
def test_an_invalid_plan_file_gets_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_bytes(text.encode("latin-1"))
    for path in (tmp_path / "plan.json", tmp_path / "none.json"):
        with pytest.raises(PlanError, match=str(path)) as error:
            Plan.read(path)
        assert "\n" not in str(error.value)


def test_a_device_builds_a_plan_without_torch_pruning() -> None:
    code = f"""
import sys
from torch import nn
sys.modules["torch_pruning"] = sys.modules["flwr"] = None  # not to be found
from fedpress.compression.model.plan import Plan
model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
print(sum(p.numel() for p in Plan.of({plan(prune={"0": {"out": [0, 3], "in": None}, "2": {"out": None, "in": [0, 3]}})})
    .build(model).parameters()))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "16\n"
