"""int8 weights."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedpress.common.errors import DataError
from fedpress.compression.model.quantization import SCALE, pack, unpack


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
