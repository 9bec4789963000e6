"""Laws of training with dead weights: they stay dead and move nothing."""

import pytest
import torch
from torch import nn

from fedpress.client.training.frozen_weights import pruned
from fedpress.client.training.loop import train
from fedpress.settings.training import OPTIMIZERS, TrainingSettings
from fedpress.simulations.workloads import Examples


def examples(count: int = 64) -> Examples:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(count, 6, generator=rng)
    return Examples(x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long())


def sparse_model() -> nn.Module:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        model[0].weight.masked_fill_(torch.arange(48).reshape(8, 6) % 3 == 0, -0.0)
        model[2].bias.fill_(-0.0)  # a vector's minus zero is a zero
    return model


def run(model: nn.Module, *, sparse: bool = True, **settings: object) -> None:
    place = {"round": 1, "rounds": 1, "seed": 0, "partition": 0, "device": "cpu"}
    train(model, examples(), TrainingSettings(batch_size=8, local_epochs=2, **settings), **place, prunes=sparse)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_pruned_weights_stay_pruned(optimizer: str) -> None:
    model = sparse_model()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    run(model, optimizer=optimizer, lr=0.01, weight_decay=0.1, proximal_mu=0.1, l1=0.01)
    for name, parameter in model.named_parameters():
        assert torch.equal(pruned(parameter), pruned(before[name])), name
        assert not torch.equal(parameter, before[name])
    assert pruned(model[0].weight).sum() == 16
    assert (model[2].bias != 0).any()


def test_a_dense_model_trains_to_the_same_bits() -> None:
    models = []
    for sparse in (False, True):
        torch.manual_seed(1)
        models.append(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)))
        run(models[-1], sparse=sparse, lr=0.1, momentum=0.9)
    for one, two in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(one, two)
