"""Factorisation: with all its ranks a layer is what it was; with fewer it is as near as the energy kept says."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from fedpress.compression.errors import SettingError
from fedpress.compression.model import Plan, factorise, report
from fedpress.compression.model.factors import WAYS, Factorise, Factors, matrices, suits

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


def of_ranks(model: nn.Module, way: str, ranks: tuple[int, ...]) -> nn.Module:
    return Plan((Factorise({"0": Factors(way, ranks)}),)).apply(model)


def full(model: nn.Sequential, way: str) -> tuple[int, ...]:
    return tuple(min(matrix.shape[-2:]) for matrix in matrices(model[0], way))


def test_every_way_is_tried() -> None:
    assert {way for _, way in PAIRS} == set(WAYS)
    assert len(PAIRS) == 18


@pytest.mark.parametrize(("name", "way"), PAIRS)
def test_with_all_ranks_a_layer_says_what_it_said(name: str, way: str) -> None:
    model, x = layer_of(name)
    torch.testing.assert_close(of_ranks(model, way, full(model, way))(x), model(x), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("name", "way"), PAIRS)
def test_more_ranks_are_nearer(name: str, way: str) -> None:
    model, _ = layer_of(name)
    most = full(model, way)
    errors = []
    for share in (0.2, 0.5, 0.8, 1.0):
        ranks = tuple(max(1, round(share * rank)) for rank in most)
        errors.append(float((weight_of(of_ranks(model, way, ranks)) - model[0].weight.detach()).norm()))
    assert all(more <= less + 1e-6 for less, more in pairwise(errors))


def weight_of(factors: nn.Module) -> Tensor:
    """The weight of the one layer that its factors are together."""
    layers = list(factors.requires_grad_(requires_grad=False)[0])  # type: ignore[index]
    weight = layers[0].weight
    if isinstance(layers[0], nn.Linear):
        return layers[1].weight @ weight
    places = tuple("xyz"[: weight.dim() - 2])
    if layers[0].groups > 1:  # separable: (in, rank, places) and (out, in, rank)
        each = weight.unflatten(0, (layers[0].groups, -1)).squeeze(2)
        return torch.einsum(
            "irx,oir->oix", each.flatten(2), layers[1].weight.flatten(1).unflatten(1, each.shape[:2])
        ).view(len(layers[1].weight), layers[0].groups, *weight.shape[2:])
    if len(layers) == 3:
        core = torch.einsum(f"qp{''.join(places)},pi->qi{''.join(places)}", layers[1].weight, weight.flatten(1))
        return torch.einsum(f"oq,qi{''.join(places)}->oi{''.join(places)}", layers[2].weight.flatten(1), core)
    if layers[1].kernel_size == (1,) * len(places):
        return torch.einsum(f"or,ri{''.join(places)}->oi{''.join(places)}", layers[1].weight.flatten(1), weight)
    return torch.einsum("rix,ory->oixy", weight.squeeze(3), layers[1].weight.squeeze(2))


@pytest.mark.parametrize("energy", [0.3, 0.7, 0.95])
@pytest.mark.parametrize("way", ["svd", "spatial", "separable"])
def test_ranks_are_the_fewest_that_keep_the_energy(way: str, energy: float) -> None:
    model, _ = layer_of("convolution")
    weight = model[0].weight.detach()
    (rank,) = factorise._ranks(model[0], way, energy)
    kept = [
        1 - float(((weight_of(of_ranks(model, way, (r,))) - weight) ** 2).sum() / (weight**2).sum())
        for r in (rank, rank - 1)
        if r
    ]
    assert kept[0] >= energy - 1e-6
    assert all(less < energy for less in kept[1:])


def test_tucker_loses_at_most_what_its_two_sides_lose() -> None:
    """De Lathauwer et al. 2000: the error of the higher-order SVD is at most the sum of the cut tails."""
    model, _ = layer_of("convolution")
    for ranks in ((2, 3), (4, 4), (5, 8)):
        error = float(((weight_of(of_ranks(model, "tucker2", ranks)) - model[0].weight.detach()) ** 2).sum())
        tails = [
            float((torch.linalg.svdvals(m)[r:] ** 2).sum())
            for m, r in zip(matrices(model[0], "tucker2"), ranks, strict=True)
        ]
        assert max(tails) - 1e-6 <= error <= sum(tails) + 1e-6


@pytest.mark.parametrize("way", WAYS)
def test_whatever_is_factorised_gets_smaller_and_answers_as_many_questions(case: Case, way: str) -> None:
    model, x = made(case)
    choice = factorise.choose(model, way, 0.4)
    less = Plan((choice.step,)).apply(model)
    assert less(x).shape == model(x).shape
    assert report.parameters(less) < report.parameters(model)
    for step in choice.parts.values():
        assert report.parameters(Plan((step,)).apply(model)) < report.parameters(model)


def test_layers_that_are_their_own_or_grouped_are_left_as_they_are() -> None:
    class Own(nn.Linear):
        pass

    for way in WAYS:
        assert not suits(Own(4, 4), way)
        assert not suits(nn.Conv2d(4, 4, 3, groups=2), way)
        assert not suits(nn.Conv2d(4, 4, 3, padding_mode="circular"), way)


@pytest.mark.parametrize(("way", "energy", "said"), [("qr", 0.9, "'qr'"), ("svd", 0.0, "0.0"), ("svd", 1.1, "1.1")])
def test_a_wrong_wish_is_refused(way: str, energy: float, said: str) -> None:
    with pytest.raises(SettingError, match=said):
        factorise.choose(made(CASES["mlp"])[0], way, energy)


def test_a_model_of_full_rank_is_refused() -> None:
    with pytest.raises(SettingError, match="no layer"):
        factorise.choose(nn.Sequential(nn.Linear(8, 8)), "svd", 1.0)
