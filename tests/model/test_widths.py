"""Laws of widths: sub-models compute what their slice of the whole computes, and lie in each other."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedpress.common.errors import SettingError
from fedpress.compression.model.channel_axes import channel_axes_of
from fedpress.compression.model.narrow import by_importance, channel_count, narrow, part_of
from fedpress.simulations.workloads import models

IMAGES = (3, 1, 28, 28)
INPUTS = {
    "mlp": (3, 1, 8, 8),
    "cnn": IMAGES,
    "mcmahan": IMAGES,
    "lenet": IMAGES,
    "cnn1d": (3, 6, 100),
    "resnet18": IMAGES,
}


class Separable(nn.Module):
    """Depthwise and pointwise, a sum with what came before, and a batch norm behind a flattening."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norm = nn.BatchNorm1d(8 * 49)
        self.last = nn.Linear(8 * 49, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.first(x))
        y = y + self.depthwise(y)
        scores: Tensor = self.last(self.norm(torch.flatten(nn.functional.max_pool2d(y, 4), 1)))
        return scores


def make(name: str) -> nn.Module:
    torch.manual_seed(3)
    model: nn.Module = Separable() if name == "separable" else getattr(models, name)(0.0)
    return model.eval()


def weights(model: nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("name", [*INPUTS, "separable"])
def test_a_sub_model_runs_and_has_its_slice_of_the_weights(name: str) -> None:
    model = make(name)
    channels = channel_axes_of(model)
    x = torch.randn(INPUTS.get(name, IMAGES))
    for width in (0.5, 0.25, 0.1):
        small = narrow(model, width)
        assert small(x).shape == model(x).shape
        taken = part_of(channels, width).take(weights(model))
        assert {key: array.tobytes() for key, array in taken.items()} == {
            key: array.tobytes() for key, array in weights(small).items()
        }
    assert narrow(model, 1.0) is model
    assert not part_of(channels, 1.0).indices


@pytest.mark.parametrize("name", [*INPUTS, "separable"])
@pytest.mark.parametrize("way", ["nested", "ordered"])
def test_a_sub_model_computes_what_the_whole_does_without_the_other_channels(name: str, way: str) -> None:
    """The whole model with the other channels' outgoing weights at zero says the same as the sub-model."""
    model = make(name)
    channels = channel_axes_of(model)
    orders = by_importance(channels, weights(model)) if way == "ordered" else []
    where = part_of(channels, 0.25, orders)
    small = narrow(model, 0.25)
    small.load_state_dict({key: torch.from_numpy(array.copy()) for key, array in where.take(weights(model)).items()})
    masked = make(name)
    columns: dict[str, torch.Tensor] = {}
    for key, tensor in masked.state_dict().items():
        index = where.indices.get(key, ())
        if len(index) == 2 and index[1] is not None:  # what a layer reads of channels that are left out
            columns[key] = torch.zeros(tensor.shape[1], dtype=torch.bool)
            columns[key][torch.from_numpy(index[1])] = True
    state = masked.state_dict()
    for key, alive in columns.items():
        state[key][:, ~alive] = 0
    masked.load_state_dict(state)
    x = torch.randn(INPUTS.get(name, IMAGES))
    with torch.inference_mode():
        torch.testing.assert_close(small(x), masked(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", INPUTS)
def test_nested_slices_are_nested(name: str) -> None:
    model = make(name)
    channels = channel_axes_of(model)
    wide, slim = part_of(channels, 0.5), part_of(channels, 0.25)
    zeros = {key: np.zeros(array.shape) for key, array in weights(model).items()}
    held = [
        where.put({key: np.ones(array.shape) for key, array in where.take(zeros).items()}, zeros)
        for where in (wide, slim)
    ]
    assert all((held[0][key] >= held[1][key]).all() for key in zeros)
    assert any((held[0][key] > held[1][key]).any() for key in zeros)


def test_the_important_channels_come_first() -> None:
    model = make("cnn")
    state = weights(model)
    state["0.weight"][5] *= 100
    orders = by_importance(channel_axes_of(model), state)
    assert orders[0][0] == 5
    assert all(sorted(order) == list(range(size)) for order, size in zip(orders, (8, 16, 110), strict=True))


def test_a_width_keeps_at_least_one_channel_and_rounds_correctly() -> None:
    assert [channel_count(8, width) for width in (1.0, 0.5, 0.25, 0.01)] == [8, 4, 2, 1]
    assert channel_count(110, 0.3) == 33


def test_scaled_inputs_are_of_the_size_that_they_have_in_the_whole() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 800), nn.Linear(800, 10, bias=False))
    x = torch.randn(500, 20)
    with torch.inference_mode():
        whole, bare, scaled = (
            narrow(model, 0.25, scale)(x).std() if scale >= 0 else model(x).std() for scale in (-1, 0, 0.5)
        )
    assert float(scaled / whole) == pytest.approx(1, abs=0.1)
    assert float(bare / whole) == pytest.approx(0.5, abs=0.1)


class SharedWeight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(self.layer(x))
        return y


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (models.CharacterGRU(30, 0.0), "embedding is a Embedding"),
        (nn.Sequential(nn.Conv2d(4, 8, 3), nn.Conv2d(8, 8, 3, groups=2)), "1 is a Conv2d"),
        (nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), "no layers between"),
        (nn.Sequential(nn.Conv1d(6, 16, 5, padding=2), nn.Linear(100, 10)), "1 reads 100 values, of 16 channels"),
        (nn.Sequential(nn.Conv1d(6, 16, 5), nn.Linear(32, 10)), "1 reads 32 values, of 16 channels on the second axis"),
        (
            nn.Sequential(nn.Linear(8, 16), nn.Flatten(), nn.Linear(80, 2)),
            "2 reads 80 values, of 16 channels on the last",
        ),
        (nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(4)), "1 reads 4 values, of 16 channels"),
        (SharedWeight(), "layer is used twice"),
        (Branching(), "graph cannot be traced"),
    ],
)
def test_a_model_that_cannot_be_narrowed_is_refused_in_one_line(model: nn.Module, why: str) -> None:
    with pytest.raises(SettingError, match=why) as caught:
        channel_axes_of(model)
    assert "\n" not in str(caught.value)
