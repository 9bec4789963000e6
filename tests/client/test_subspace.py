"""Training within subspaces: updates lie in them, so that their codec loses nothing."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fedpress.client.training.gradient_subspace import GradientSubspace
from fedpress.client.training.loop import train
from fedpress.common.errors import SettingError
from fedpress.common.rng import derive
from fedpress.compression import Layout, parse
from fedpress.settings.training import OPTIMIZERS, TrainingSettings
from fedpress.simulations.settings import resolve

PLACE = {"round": 1, "rounds": 5, "seed": 7, "partition": 3, "device": "cpu"}


def make_model() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return nn.Sequential(nn.Conv2d(3, 12, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12 * 16, 20), nn.Linear(20, 4))


def examples(count: int = 30) -> SimpleNamespace:
    rng = torch.Generator().manual_seed(1)
    return SimpleNamespace(x=torch.randn(count, 3, 6, 6, generator=rng), y=torch.randint(4, (count,), generator=rng))


def change(training: TrainingSettings) -> dict[str, np.ndarray]:
    model, start = make_model(), make_model().state_dict()
    train(model, examples(), training, **PLACE)
    return {name: (tensor - start[name]).numpy() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize(
    "options",
    [
        *({"optimizer": name} for name in OPTIMIZERS),
        {"momentum": 0.9},
        {"clip_norm": 0.1},
        {"l1": 1e-3},
        {"proximal_mu": 0.5},
    ],
)
def test_updates_lie_in_the_subspace(options: dict[str, Any]) -> None:
    update = change(TrainingSettings(lr=0.05, batch_size=8, subspace=0.1, **options))
    codec, layout = parse("subspace(0.1) | none"), Layout.of(update)
    back = codec.decode(codec.encode(update, codec.init(layout), derive(0))[0], layout)
    for name, array in update.items():
        np.testing.assert_allclose(back[name], array, atol=1e-5 * np.abs(array).max() + 1e-7)
    assert np.abs(update["3.weight"]).max() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_gradients_keep_their_expected_norm(dtype: torch.dtype) -> None:
    model = nn.Linear(300, 200).to(dtype)
    before = torch.randn(200, 300, generator=torch.Generator().manual_seed(0)).to(dtype)
    model.weight.grad = before.clone()
    GradientSubspace(model, 0.05).project_gradients()
    assert float(model.weight.grad.norm() / before.norm()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    "settings",
    [
        {"up": "subspace(0.2) | fp16"},
        {"weight-decay": 0.1},
        {"distillation.enabled": True},
        {"sparsity.target": 0.5},
        {"mixed-fleet.groups": [{"width": 1, "share": 0.5}, {"width": 0.5, "share": 0.5}]},
    ],
)
def test_what_leaves_the_subspace_is_refused(settings: dict[str, object]) -> None:
    with pytest.raises(SettingError, match="subspace"):
        resolve({"workload": "digits", "training.subspace": 0.1, **settings})


def test_tied_weights_are_refused() -> None:
    model = nn.Sequential(nn.Linear(20, 20), nn.Linear(20, 20))
    model[1].weight = model[0].weight
    with pytest.raises(SettingError, match="tied"):
        GradientSubspace(model, 0.1)
