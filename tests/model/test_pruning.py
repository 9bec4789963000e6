"""Structured pruning: what is removed is gone from the whole graph, and nothing else is."""

import copy
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedpress.common.errors import SettingError
from fedpress.compression.model import report
from fedpress.compression.model.channel_importance import CRITERIA, activation, l1, taylor
from fedpress.compression.model.dependency_graph import ChannelGroup, Indices, channel_groups, prune
from fedpress.compression.model.evaluation import loss
from fedpress.compression.model.plan import Plan
from fedpress.compression.model.prune_channels import NORMS
from fedpress.compression.model.prune_choice import choose
from fedpress.simulations.workloads import models

from .conftest import CASES, IMAGE, Case, Mixing, Scaled, Shuffled, examples, made


def silence(model: nn.Module, it: ChannelGroup, silent: Indices) -> None:
    """Let channels be zero throughout."""
    with torch.no_grad():
        for member in it.members:
            if member.side == "out":
                at = torch.from_numpy(member.at[np.isin(member.channel, silent)])
                for part in model.get_submodule(member.layer).parameters(recurse=False):
                    part[at] = 0


def half(it: ChannelGroup, rng: np.random.Generator) -> Indices:
    """Half of each block of channels, ascending."""
    each = it.width // it.blocks
    blocks = [b * each + np.sort(rng.permutation(each)[: each // 2]) for b in range(it.blocks)]
    return np.concatenate(blocks).astype(np.int64)


def check_silent(case: Case) -> None:
    model, x = made(case)
    found, _ = channel_groups(model, x)
    assert len(found) == case.groups
    model, x = model.double(), x.double()
    rng = np.random.default_rng(3)
    silent = [half(it, rng) for it in found]
    for it, some in zip(found, silent, strict=True):
        silence(model, it, some)
    kept = [np.setdiff1d(np.arange(it.width), some) for it, some in zip(found, silent, strict=True)]
    less = Plan((prune(list(zip(found, kept, strict=True))),)).apply(model)
    assert report.parameters(less) < report.parameters(model)
    torch.testing.assert_close(less(x), model(x), rtol=1e-9, atol=1e-9)


def test_removing_channels_that_are_zero_throughout_changes_no_output(case: Case) -> None:
    check_silent(case)


@pytest.mark.parametrize("name", ["mcmahan", "resnet18"])
@pytest.mark.slow
def test_removing_zero_channels_of_large_models_changes_no_output(name: str) -> None:
    check_silent(CASES[name])


@pytest.mark.parametrize("by", CRITERIA)
def test_channels_that_are_zero_throughout_go_first(case: Case, by: str) -> None:
    model, x = made(case)
    rng = np.random.default_rng(4)
    found, _ = channel_groups(model, x)
    silent = [half(it, rng) for it in found]
    for it, some in zip(found, silent, strict=True):
        silence(model, it, some)
    less = Plan((choose(model, x, 0.5, by, examples(x)).step,)).apply(model)
    torch.testing.assert_close(less(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("by", CRITERIA)
def test_a_pruned_model_is_smaller_and_has_the_same_output_shape(case: Case, by: str) -> None:
    model, x = made(case)
    before = copy.deepcopy(model.state_dict())
    choice = choose(model, x, 0.5, by, examples(x))
    less = Plan((choice.step,)).apply(model)
    assert less(x).shape == model(x).shape
    assert report.parameters(less) < 0.6 * report.parameters(model)
    assert report.flops(less, x) < 0.6 * report.flops(model, x)
    assert len(choice.parts) == case.groups
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    for step in choice.parts.values():  # each part stands alone
        assert Plan((step,)).apply(model)(x).shape == model(x).shape


def test_pruning_half_of_the_channels_halves_every_axis() -> None:
    model, x = made(CASES["cnn"])
    less = Plan((choose(model, x, 0.5, "l1", ()).step,)).apply(model)
    shapes = [tuple(p.shape) for p in less.parameters() if p.dim() > 1]
    assert shapes == [(4, 1, 5, 5), (8, 4, 5, 5), (55, 128), (10, 55)]


@pytest.mark.slow
def test_a_pruned_resnet_trains_on() -> None:
    model, x = made(CASES["resnet18"])
    less = Plan((choose(model, x, 0.9, "l1", ()).step,)).apply(model).train()
    loss(less(x), torch.arange(len(x))).backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and p.grad.shape == p.shape for p in less.parameters())
    norms = [m for m in less.modules() if isinstance(m, NORMS)]
    assert {m.num_features for m in norms} == {6, 13, 26, 51}


def test_l1_is_the_absolute_sum_of_a_filter_and_joins_add_up() -> None:
    model, x = made(CASES["residual"])
    found, _ = channel_groups(model, x)
    joined = next(it for it in found if {m.layer for m in it.members} >= {"shortcut", "two.3"})
    wanted = sum(model.get_parameter(f"{name}.weight").abs().sum((1, 2, 3)) for name in ("shortcut", "two.3"))
    assert isinstance(wanted, Tensor)
    np.testing.assert_allclose(l1(model, [joined], ())[0], wanted.detach().numpy(), rtol=1e-5)


def test_activation_importance_is_input_times_weight_of_the_next_layer() -> None:
    model, x = made(CASES["mlp"])
    found, _ = channel_groups(model, x)
    hidden = model[1](model[0](x)).relu()  # type: ignore[index]
    wanted = (hidden.abs().sum(0) * model[4].weight.abs().sum(0)).detach().numpy()  # type: ignore[index]
    np.testing.assert_allclose(activation(model, found, examples(x))[0], wanted, rtol=1e-5)


def test_taylor_importance_is_the_first_order_change_of_the_loss() -> None:
    """The loss of a model without a little of a channel falls or rises by the root of its score, times that little."""
    model, x = made(CASES["mlp"])
    model = model.double()
    batches = [(x.double(), y) for x, y in examples(x)]
    found, _ = channel_groups(model, x.double())
    scores = taylor(model, found, batches)[0]
    (inputs, targets), little = batches[0], 1e-6
    with torch.no_grad():
        before = float(loss(model(inputs), targets))
        for channel in range(0, 128, 17):
            less = copy.deepcopy(model)
            less[1].weight[channel] *= 1 - little  # type: ignore[index]
            less[1].bias[channel] *= 1 - little  # type: ignore[index]
            slope = (float(loss(less(inputs), targets)) - before) / little
            assert slope**2 == pytest.approx(scores[channel], rel=1e-2, abs=1e-12)


@pytest.mark.parametrize(
    ("make", "found", "left"),
    [
        (Mixing, {"plain"}, {"mixed": "mix", "head": "outputs"}),
        (Shuffled, {"first", "next"}, {"grouped": "mix", "head": "outputs"}),
        (Scaled, set(), {"first": "parameter", "head": "outputs"}),
    ],
)
def test_channels_that_cannot_be_removed_are_kept(
    make: Callable[[], nn.Module], found: set[str], left: dict[str, str]
) -> None:
    torch.manual_seed(1)
    could, reasons = channel_groups(make().eval(), torch.randn(4, 1, 8, 8))
    assert {it.name for it in could} == found
    assert reasons.keys() == left.keys()
    assert all(left[layer] in reason for layer, reason in reasons.items())


def test_a_model_without_removable_channels_is_refused() -> None:
    model = models.CharacterGRU(20, 0.0)
    with pytest.raises(SettingError, match="nothing of this model"):
        choose(model, torch.zeros(2, 5, dtype=torch.int64), 0.5, "l1", ())


@pytest.mark.parametrize(("share", "by", "said"), [(0.0, "l1", "0.0"), (1.0, "l1", "1.0"), (0.5, "l2", "'l1'")])
def test_an_invalid_setting_is_refused(share: float, by: str, said: str) -> None:
    model, x = made(CASES["mlp"])
    with pytest.raises(SettingError, match=said):
        choose(model, x, share, by, ())


def test_without_the_library_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(SettingError, match=r"pip install \"fedpress\[shrink\]\""):
        choose(models.cnn(0.0), torch.zeros(2, *IMAGE), 0.5, "l1", ())
