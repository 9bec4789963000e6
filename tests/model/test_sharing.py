"""Weight sharing: few values, few bytes, the same answers however they are stored, and a codebook that trains."""

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import nn

from fedpress.common.errors import SettingError
from fedpress.compression.model import weight_sharing
from fedpress.compression.model.evaluation import loss
from fedpress.compression.model.plan import Plan
from fedpress.compression.model.weight_sharing import ShareWeights, unpack

from .conftest import CASES, Case, examples, made


@pytest.mark.parametrize("clusters", [2, 3, 5, 16, 17, 256])
def test_shared_weights_are_the_nearest_of_the_codebook(case: Case, clusters: int) -> None:
    model, _ = made(case)
    step = weight_sharing.choose(model, clusters).step
    shared = Plan((step,)).apply(model)
    assert isinstance(step, ShareWeights)
    for name in step.layers:
        before, weight = model.get_submodule(name).weight, shared.get_submodule(name).weight
        assert isinstance(before, torch.Tensor)
        assert isinstance(weight, torch.Tensor)
        book = weight.unique()
        assert len(book) <= clusters
        nearest = (before.detach().flatten().unsqueeze(1) - book.detach()).abs().min(1).values
        torch.testing.assert_close((before - weight).detach().abs().flatten(), nearest, rtol=1e-4, atol=1e-6)


def test_the_file_is_smaller_and_unpacking_changes_no_answer(case: Case) -> None:
    model, x = made(case)
    shared = Plan((weight_sharing.choose(model, 16).step,)).apply(model).eval()
    before = save(shared.state_dict())
    plain = unpack(shared).eval()
    assert torch.equal(plain(x), shared(x))
    assert plain.state_dict().keys() == model.state_dict().keys()
    assert save(shared.state_dict()) == before  # and it still is what it was
    weights = sum(p.numel() for p in model.parameters() if p.dim() > 1) * 4
    packed = sum(tensor.nbytes for name, tensor in shared.state_dict().items() if "parametrizations" in name)
    kept = sum(tensor.nbytes for name, tensor in shared.state_dict().items() if "parametrizations" not in name)
    others = sum(tensor.nbytes for tensor in model.state_dict().values()) - weights
    assert packed + kept < weights + others


def test_sixteen_values_take_four_bits_a_weight() -> None:
    model, _ = made(CASES["mlp"])
    shared = Plan((weight_sharing.choose(model, 16).step,)).apply(model)
    assert sum(tensor.nbytes for tensor in shared.state_dict().values()) == (64 * 128 + 128 * 10) // 2 + 4 * (
        2 * 16 + 138
    )


def test_as_many_clusters_as_values_lose_nothing() -> None:
    model = nn.Sequential(nn.Linear(30, 6))
    with torch.no_grad():
        model[0].weight.copy_(model[0].weight.detach().mul(4).round())
    x = torch.randn(5, 30)
    assert torch.equal(Plan((ShareWeights({"0": 20}),)).apply(model)(x), model(x))


def test_a_codebook_s_gradient_is_the_mean_of_its_weights_gradients() -> None:
    model, x = made(CASES["mlp"])
    shared = Plan((weight_sharing.choose(model, 4).step,)).apply(model)
    plain = unpack(shared)
    for one in (shared, plain):
        for batch, y in examples(x):
            loss(one(batch), y).backward()  # type: ignore[no-untyped-call]
    weight, grad = (tensor.flatten() for tensor in (plain[1].weight.detach(), plain[1].weight.grad))  # type: ignore[index]
    original = shared[1].parametrizations.weight.original  # type: ignore[index]
    for value, pull in zip(original.tolist(), original.grad.tolist(), strict=True):
        assert pull == pytest.approx(float(grad[weight == value].mean()), rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("clusters", [1, 257])
def test_an_invalid_setting_is_refused(clusters: int) -> None:
    model, _ = made(CASES["mlp"])
    with pytest.raises(SettingError, match=str(clusters)):
        weight_sharing.choose(model, clusters)


def test_packed_indices_are_read_back_for_any_number_of_values() -> None:
    """Whatever the number of weights, and of bits a place, none is lost in packing."""
    rng = np.random.default_rng(1)
    for size in range(1, 40):
        for clusters in (1, 2, 4, 5, 16, 30):
            if clusters <= size:
                model = nn.Sequential(nn.Linear(size, 1, bias=False))
                values = torch.from_numpy(rng.integers(0, clusters, size).astype(np.float32))
                with torch.no_grad():
                    model[0].weight.copy_(values)
                shared = Plan((ShareWeights({"0": clusters}),)).apply(model)
                assert torch.equal(shared[0].weight.detach()[0], values)  # type: ignore[index,operator,union-attr]
