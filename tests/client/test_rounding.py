"""`qat-bits`: a node trains with rounded weights and inputs, and sends what it would have sent."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from fedpress.client.settings import Training
from fedpress.client.training import train
from fedpress.compression.errors import SettingError
from fedpress.simulations.workloads.task import Examples


def trained(training: Training) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))
    x = torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    examples = Examples(x, (x.mean((1, 2, 3)) > 0.5).long())
    train(model, examples, training, round=1, rounds=1, seed=0, partition=0, device="cpu")
    return model


def test_it_is_another_training_to_a_model_of_the_same_names() -> None:
    plain = Training(local_epochs=5)
    models = [trained(plain), trained(replace(plain, qat_bits=8)), trained(replace(plain, qat_bits=4))]
    whole, fine, coarse = (nn.utils.parameters_to_vector(model.parameters()).detach() for model in models)
    assert list(models[0].state_dict()) == list(models[1].state_dict())
    assert 0 < float((fine - whole).norm()) < float((coarse - whole).norm())
    again = nn.utils.parameters_to_vector(trained(replace(plain, qat_bits=8)).parameters()).detach()
    assert torch.equal(again, fine)


@pytest.mark.parametrize("bits", [-1, 1, 3, 9])
def test_so_few_or_so_many_bits_are_refused(bits: int) -> None:
    with pytest.raises(SettingError, match=f"qat-bits is 0, or 4 to 8, got {bits}"):
        Training(qat_bits=bits)
