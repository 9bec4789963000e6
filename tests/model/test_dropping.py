"""Layer dropping: what the loss misses least goes first, and only what gives as much as it takes."""

import pytest
import torch
from torch import Tensor, nn

from fedpress.common.errors import SettingError
from fedpress.compression.model import layer_dropping, report
from fedpress.compression.model.evaluation import batches_of, loss_on
from fedpress.compression.model.layer_dropping import DropLayers, candidates
from fedpress.compression.model.plan import Plan
from fedpress.simulations.workloads import models

from .conftest import CASES, examples, made


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x).relu()


def chain() -> tuple[nn.Sequential, Tensor]:
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(6, 8), Block(8), Block(8), Block(8), nn.Linear(8, 10)), torch.randn(40, 6)


def test_a_block_that_does_nothing_goes_first_and_is_not_missed() -> None:
    model, x = chain()
    with torch.no_grad():
        model[4].weight.mul_(30)  # so sure of its answers that every other one costs
    for number in (2, 1):
        nn.init.zeros_(model[number].body.weight)
        nn.init.zeros_(model[number].body.bias)
        batches = batches_of(x, model(x).argmax(1))
        choice = layer_dropping.choose(model, x, 1, batches)
        less = Plan((choice.step,)).apply(model)
        assert torch.equal(less(x), model(x))
        assert report.parameters(less) == report.parameters(model) - 72
    assert layer_dropping.choose(model, x, 2, batches).step.json()["layers"] == ["1", "2"]


def test_the_one_that_goes_is_the_one_missed_least() -> None:
    model, x = chain()
    batches = examples(x)
    choice = layer_dropping.choose(model, x, 1, batches)
    losses = {name: loss_on(Plan((DropLayers((name,)),)).apply(model), batches) for name in candidates(model, x)}
    assert choice.step == DropLayers((min(losses, key=losses.__getitem__),))
    assert set(candidates(model, x)) == {"1", "2", "3", "1.body", "2.body", "3.body"}


def test_nothing_is_dropped_within_what_was_dropped() -> None:
    model, x = chain()
    layers = layer_dropping.choose(model, x, 3, examples(x)).step.json()["layers"]
    assert len({name.split(".")[0] for name in layers}) == 3


def test_a_residual_network_can_miss_its_blocks_of_one_shape() -> None:
    model = models.resnet18(0.0)
    found = candidates(model, torch.randn(1, 1, 28, 28))
    assert {"3", "4", "6", "8", "10"} <= set(found)
    assert not {"5", "7", "9"} & set(found)


@pytest.mark.parametrize("name", ["cnn", "mlp", "cnn1d"])
def test_a_plain_network_is_refused(name: str) -> None:
    model, x = made(CASES[name])
    with pytest.raises(SettingError, match="it has none"):
        layer_dropping.choose(model, x, 1, examples(x))


def test_more_than_there_are_is_refused() -> None:
    model, x = chain()
    with pytest.raises(SettingError, match="4 layers"):
        layer_dropping.choose(model, x, 4, examples(x))
    with pytest.raises(SettingError, match="got 0"):
        layer_dropping.choose(model, x, 0, examples(x))
