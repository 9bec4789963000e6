"""Factorisation: with its whole rank a layer is what it was; with a lower one it is as near as the energy kept says."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from fedpress.common.errors import SettingError
from fedpress.compression.model import factor_layers, report
from fedpress.compression.model.factor_layers import WAYS, Factorise, Factors, matrix, suits
from fedpress.compression.model.plan import Plan

from .conftest import CASES, Case, made

LAYERS = {
    "linear": (lambda: nn.Linear(20, 14), (5, 20)),
    "linear without bias": (lambda: nn.Linear(12, 14, bias=False), (5, 12)),
    "convolution": (lambda: nn.Conv2d(6, 9, 3, padding=1), (2, 6, 9, 9)),
    "strided": (lambda: nn.Conv2d(4, 5, (3, 5), (2, 1), (1, 2), bias=False), (2, 4, 9, 9)),
    "dilated": (lambda: nn.Conv2d(3, 5, 3, dilation=2), (2, 3, 9, 9)),
    "pointwise": (lambda: nn.Conv2d(6, 9, 1), (2, 6, 5, 5)),
    "of a line": (lambda: nn.Conv1d(6, 9, 5, 2, 2), (2, 6, 20)),
}
PAIRS = [(name, way) for name, (make, _) in LAYERS.items() for way in WAYS if suits(make(), way)]


def layer_of(name: str) -> tuple[nn.Sequential, Tensor]:
    make, shape = LAYERS[name]
    torch.manual_seed(5)
    return nn.Sequential(make()).double(), torch.randn(shape, dtype=torch.float64)


def of_rank(model: nn.Module, way: str, rank: int) -> nn.Module:
    return Plan((Factorise({"0": Factors(way, rank)}),)).apply(model)


def full(model: nn.Sequential, way: str) -> int:
    return min(matrix(model[0], way).shape)


def test_every_method_of_factorisation_is_tested() -> None:
    assert {way for _, way in PAIRS} == set(WAYS)
    assert len(PAIRS) == 10


@pytest.mark.parametrize(("name", "way"), PAIRS)
def test_full_rank_factors_give_the_same_output(name: str, way: str) -> None:
    model, x = layer_of(name)
    torch.testing.assert_close(of_rank(model, way, full(model, way))(x), model(x), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("name", "way"), PAIRS)
def test_a_higher_rank_is_nearer(name: str, way: str) -> None:
    model, _ = layer_of(name)
    most, weight = full(model, way), model[0].weight.detach()
    ranks = (max(1, round(share * most)) for share in (0.2, 0.5, 0.8, 1.0))
    errors = [float((weight_of(of_rank(model, way, rank)) - weight).norm()) for rank in ranks]
    assert all(more <= less + 1e-6 for less, more in pairwise(errors))


def weight_of(factors: nn.Module) -> Tensor:
    """The weight of the one layer that its factors are together."""
    layers = list(factors.requires_grad_(requires_grad=False)[0])  # type: ignore[index]
    weight = layers[0].weight
    if isinstance(layers[0], nn.Linear):
        return layers[1].weight @ weight
    places = tuple("xyz"[: weight.dim() - 2])
    if layers[1].kernel_size == (1,) * len(places):
        return torch.einsum(f"or,ri{''.join(places)}->oi{''.join(places)}", layers[1].weight.flatten(1), weight)
    return torch.einsum("rix,ory->oixy", weight.squeeze(3), layers[1].weight.squeeze(2))


@pytest.mark.parametrize("energy", [0.3, 0.7, 0.95])
@pytest.mark.parametrize("way", WAYS)
def test_the_rank_is_the_lowest_that_keeps_the_energy(way: str, energy: float) -> None:
    model, _ = layer_of("convolution")
    weight = model[0].weight.detach()
    rank = factor_layers.rank_of(model[0], way, energy)
    kept = [
        1 - float(((weight_of(of_rank(model, way, r)) - weight) ** 2).sum() / (weight**2).sum())
        for r in (rank, rank - 1)
        if r
    ]
    assert kept[0] >= energy - 1e-6
    assert all(less < energy for less in kept[1:])


@pytest.mark.parametrize("way", WAYS)
def test_a_factorised_model_is_smaller_and_has_the_same_output_shape(case: Case, way: str) -> None:
    model, x = made(case)
    choice = factor_layers.choose(model, way, 0.4)
    less = Plan((choice.step,)).apply(model)
    assert less(x).shape == model(x).shape
    assert report.parameters(less) < report.parameters(model)
    for step in choice.parts.values():
        assert report.parameters(Plan((step,)).apply(model)) < report.parameters(model)


def test_grouped_and_custom_layers_are_not_factorised() -> None:
    class Own(nn.Linear):
        pass

    for way in WAYS:
        assert not suits(Own(4, 4), way)
        assert not suits(nn.Conv2d(4, 4, 3, groups=2), way)
        assert not suits(nn.Conv2d(4, 4, 3, padding_mode="circular"), way)


@pytest.mark.parametrize(("way", "energy", "said"), [("qr", 0.9, "'qr'"), ("svd", 0.0, "0.0"), ("svd", 1.1, "1.1")])
def test_an_invalid_setting_is_refused(way: str, energy: float, said: str) -> None:
    with pytest.raises(SettingError, match=said):
        factor_layers.choose(made(CASES["mlp"])[0], way, energy)


def test_a_model_of_full_rank_is_refused() -> None:
    with pytest.raises(SettingError, match="no layer"):
        factor_layers.choose(nn.Sequential(nn.Linear(8, 8)), "svd", 1.0)
