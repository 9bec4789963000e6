"""int8 weights, and training that feels them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fedpress.common.errors import DataError
from fedpress.compression.model.quantization import SCALE, fake_quantised, pack, round_input, round_weight, unpack


def weights(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(st.integers(0, 1000), st.floats(1e-6, 1e6))
def test_a_weight_comes_back_within_half_a_step_of_its_row(seed: int, size: float) -> None:
    weight = weights(seed, 4, 3, 2, 2) * size
    packed = pack({"w": weight, "b": weight.flatten()[:4], "n": torch.tensor(3)})
    assert packed["w"].dtype == torch.int8
    assert packed["w" + SCALE].shape == (4,)
    back = unpack(packed)
    assert list(back) == ["w", "b", "n"]
    assert torch.equal(back["b"], weight.flatten()[:4])
    step = weight.abs().amax((1, 2, 3), keepdim=True) / 127
    assert bool(((back["w"] - weight).abs() <= 0.501 * step).all())


def test_rows_of_zeros_stay_zeros() -> None:
    assert torch.equal(unpack(pack({"w": torch.zeros(2, 3)}))["w"], torch.zeros(2, 3))


@pytest.mark.parametrize("scales", [None, torch.ones(3)])
def test_int8_without_its_scales_is_refused(scales: torch.Tensor | None) -> None:
    packed = {"w": torch.ones(2, 3, dtype=torch.int8)} | ({} if scales is None else {"w" + SCALE: scales})
    with pytest.raises(DataError, match="w is int8 and has no scale for each of its 2 rows"):
        unpack(packed)


@pytest.mark.parametrize("bits", [4, 8])
def test_rounding_is_to_so_many_values_and_passes_gradients(bits: int) -> None:
    weight, x = weights(0, 3, 1000).requires_grad_(), weights(1, 3, 1000).relu().requires_grad_()
    rounded = round_weight(weight, bits), round_input(x, bits)
    assert all(len(row.unique()) < 2**bits for row in rounded[0].round(decimals=5))
    assert len(rounded[1].round(decimals=5).unique()) <= 2**bits
    # What is zero stays zero: padding, and what ReLU cuts off.
    assert float(rounded[1].detach()[x == 0].abs().max()) == 0.0
    sum(part.sum() for part in rounded).backward()  # type: ignore[union-attr]
    for given_ in (weight, x):
        assert torch.equal(given_.grad, torch.ones_like(given_))  # type: ignore[arg-type]


def test_folding_a_batch_norm_rounds_as_before() -> None:
    weight, factor = weights(0, 5, 20), weights(1, 5, 1).abs()
    assert torch.allclose(round_weight(weight * factor, 8), round_weight(weight, 8) * factor, rtol=1e-5)


def test_a_model_is_rounded_for_so_long_and_no_longer() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3), nn.Embedding(3, 2))[:4]
    x, names = torch.rand(2, 1, 4, 4), list(model.state_dict())
    plain = model(x)
    with fake_quantised(model, 0):
        assert torch.equal(model(x), plain)
    with fake_quantised(model, 4):
        coarse = model(x)
        assert list(model.state_dict()) == names
    with fake_quantised(model, 8):
        fine = model(x)
    with pytest.raises(RuntimeError), fake_quantised(model, 8):
        model(x[:, :, :1])
    assert 0 < (fine - plain).abs().max() < (coarse - plain).abs().max()
    assert torch.equal(model(x), plain)
