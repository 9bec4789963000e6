"""What a report counts: operations by their formula, parameters by layer, classes by their examples."""

import math

import pytest
import torch
from torch import Tensor, nn

from fedpress.compression.model import report
from fedpress.compression.model.evaluation import accuracy_by_class, batches_of, recalibrate
from fedpress.compression.model.plan import Plan
from fedpress.compression.model.prune_channels import KeptChannels, Prune
from fedpress.compression.model.prune_choice import choose
from fedpress.compression.model.step import Choice

from .conftest import Case, made


def test_a_multiplication_and_an_addition_count_as_two_operations() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, groups=4), nn.Flatten(), nn.Linear(72, 5)
    )
    x = torch.randn(4, 3, 8, 8)
    assert report.flops(model, x) == 2 * (8 * 3 * 9 * 64 + 8 * 2 * 9 * 9 + 72 * 5)


def test_layers_add_up_to_the_whole(case: Case) -> None:
    model, x = made(case)
    less = Plan((choose(model, x, 0.5, "l1", ()).step,)).apply(model)
    rows = report.layers(model, less, x)
    for side, whole in (("before", model), ("after", less)):
        assert sum(row[side]["parameters"] for row in rows) == report.parameters(whole)
        assert sum(row[side]["flops"] for row in rows) == report.flops(whole, x)


class Attention(nn.Module):
    """Matrix products of its layers' outputs, and a further weight."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(6, 4), nn.Linear(6, 4)
        self.mix = nn.Parameter(torch.randn(5, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.mix @ (self.query(x) @ self.key(x).transpose(1, 2))


def test_operations_between_layers_are_counted() -> None:
    x = torch.randn(3, 5, 6)
    mixed, inner, layer = 2 * 5 * 5 * 5, 2 * 5 * 5 * 4, 2 * 5 * 6 * 4
    for model, name in ((Attention(), ""), (nn.Sequential(nn.Identity(), Attention()), "1.")):
        assert report.flops(model, x) == mixed + inner + 2 * layer
        rows = {row["layer"]: row["before"]["flops"] for row in report.layers(model, model, x)}
        assert rows == {name.rstrip("."): mixed + inner, name + "query": layer, name + "key": layer}
        assert sum(row["after"]["parameters"] for row in report.layers(model, model, x)) == report.parameters(model)


@pytest.mark.parametrize("fused", [True, False])
def test_attention_and_linear_layers_of_a_transformer_count(fused: bool) -> None:
    length, width, inner = 10, 32, 64
    model = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(width, 4, inner, batch_first=True), 2, enable_nested_tensor=fused
    )
    projections, products = 4 * length * width * width, 2 * length * length * width
    expected = 2 * 2 * (projections + products + 2 * length * width * inner)
    x = torch.randn(3, length, width)
    assert report.flops(model, x) == expected
    assert sum(row["before"]["flops"] for row in report.layers(model, model, x)) == expected


def test_a_layer_alone_is_a_row() -> None:
    model = nn.Linear(6, 4)
    (row,) = report.layers(model, model, torch.randn(1, 6))
    assert (row["layer"], row["after"]["flops"]) == ("", 2 * 6 * 4)


def test_accuracy_by_class_is_measured_on_the_class_s_examples() -> None:
    model = nn.Identity()
    x = torch.eye(4)[[0, 0, 1, 2, 2]]
    y = torch.tensor([0, 1, 1, 2, 0])
    *each, whole = accuracy_by_class(model, batches_of(x, y), 4)
    assert each[:3] == [0.5, 0.5, 1.0]
    assert math.isnan(each[3])
    assert whole == pytest.approx(0.6)
    assert report.named(each, "abcd")["d"] is None


def test_a_part_that_changes_nothing_has_no_effect() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Identity())
    x, y = torch.randn(20, 4), torch.arange(20) % 4
    step = Prune({"0": KeptChannels()})
    (row,) = report.effects(model, Choice(step, {"0": step}, {}), batches_of(x, y), "abcd")
    assert row == {"layer": "0", "classes": dict.fromkeys("abcd", 0.0), "accuracy": 0.0}


def test_latency_tells_a_large_model_from_a_small_one() -> None:
    models = {"large": nn.Sequential(*[nn.Linear(512, 512) for _ in range(20)]), "small": nn.Linear(512, 2)}
    times = report.latency(models, torch.randn(10, 512))
    assert times.keys() == models.keys()
    assert all(milliseconds > 0 for milliseconds in times.values())


def test_batch_norms_measured_anew_have_the_mean_and_variance_of_what_they_see() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3, momentum=0.3), nn.Dropout(0.5))
    x = 5 + 2 * torch.randn(400, 3)
    recalibrate(model, [(x, torch.zeros(400, dtype=torch.int64))])
    norm = model[0]
    torch.testing.assert_close(norm.running_mean, x.mean(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(norm.running_var, x.var(0), rtol=1e-4, atol=1e-4)
    assert norm.momentum == 0.3
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("count", [1, 101, 201])
def test_a_batch_of_one_example_is_not_used_for_batch_norms(count: int) -> None:
    model, x = nn.Sequential(nn.BatchNorm1d(3)), torch.randn(count, 3)
    recalibrate(model, batches_of(x, torch.zeros(count, dtype=torch.int64)))
    if count > 1:
        seen = x[: count - 1].view(-1, 100, 3).mean(1).mean(0)
        torch.testing.assert_close(model[0].running_mean, seen, rtol=1e-4, atol=1e-4)
