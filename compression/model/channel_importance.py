"""Criteria of the importance of channels, each a function of the model, the channels and examples.

- `l1`: the absolute sum of the weights that compute it, Li et al. 2017, https://arxiv.org/abs/1608.08710.
- `activation`: the sum of |w * x| over the weights that read it, x its activations, as in Wanda for single weights, Sun
  et al. 2023, https://arxiv.org/abs/2306.11695.
- `taylor`: the squared first-order change of the loss without the weights that compute it, Molchanov et al. 2019,
  https://arxiv.org/abs/1906.10771.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedpress.compression.model.dependency_graph import ChannelGroup, GroupMember
from fedpress.compression.model.evaluation import Batches, loss
from fedpress.compression.model.prune_channels import NORMS

Scores = NDArray[np.float64]
Criterion = Callable[[nn.Module, Sequence[ChannelGroup], Batches], list[Scores]]


def l1(model: nn.Module, found: Sequence[ChannelGroup], batches: Batches) -> list[Scores]:
    """Return, for each of `found`, the importance of each channel, (width,)."""
    del batches
    return [
        _summed(
            it,
            {m.layer: _rows(model.get_parameter(m.layer + ".weight").detach().abs()) for m in _makers(model, it)},
            "out",
        )
        for it in found
    ]


def activation(model: nn.Module, found: Sequence[ChannelGroup], batches: Batches) -> list[Scores]:
    """Return the scores by the activations on `batches`."""
    readers = {m.layer: model.get_submodule(m.layer) for it in found for m in it.members if m.side == "in"}
    seen = {name: torch.zeros(0) for name in readers}

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].detach().abs()
            axis = x.dim() - 1 if isinstance(module, nn.Linear) else 1
            total = x.sum([a for a in range(x.dim()) if a != axis])
            seen[name] = total if len(seen[name]) == 0 else seen[name] + total

        return hook

    hooks = [module.register_forward_pre_hook(keep(name)) for name, module in readers.items()]
    try:
        model.eval()
        with torch.no_grad():
            for x, _ in batches:
                model(x)
    finally:
        for hook in hooks:
            hook.remove()
    columns = {name: _columns(module) * seen[name] for name, module in readers.items()}
    return [_summed(it, columns, "in") for it in found]


def taylor(model: nn.Module, found: Sequence[ChannelGroup], batches: Batches) -> list[Scores]:
    """Return the scores by the loss on `batches`."""
    model.eval()
    scores = [np.zeros(it.width) for it in found]
    for x, y in batches:
        model.zero_grad(set_to_none=True)
        loss(model(x), y).backward()  # type: ignore[no-untyped-call]
        for number, it in enumerate(found):
            scores[number] += (
                _summed(it, {m.layer: _pull(model.get_submodule(m.layer)) for m in _makers(model, it)}, "out") ** 2
            )
    model.zero_grad(set_to_none=True)
    return scores


CRITERIA: Mapping[str, Criterion] = {"l1": l1, "activation": activation, "taylor": taylor}


def _makers(model: nn.Module, it: ChannelGroup) -> list[GroupMember]:
    """Return the members whose weights compute the channels; batch norms only scale them."""
    return [m for m in it.members if m.side == "out" and not isinstance(model.get_submodule(m.layer), NORMS)]


def _summed(it: ChannelGroup, values: Mapping[str, Tensor], side: str) -> Scores:
    """Return the sum of layers' values, (outputs,) or (inputs,), by channel."""
    total = np.zeros(it.width)
    for member in it.members:
        if member.side == side and member.layer in values:
            np.add.at(total, member.channel, values[member.layer].double().numpy()[member.at])
    return total


def _rows(weight: Tensor) -> Tensor:
    return weight.flatten(1).sum(1)


def _columns(module: nn.Module) -> Tensor:
    """Return the absolute sum of a layer's weights for each of its inputs, (inputs,)."""
    weight = module.get_parameter("weight").detach().abs()
    groups = int(getattr(module, "groups", 1))
    by_group = weight.flatten(2).sum(2) if weight.dim() > 2 else weight
    return by_group.view(groups, -1, weight.shape[1]).sum(1).flatten()


def _pull(module: nn.Module) -> Tensor:
    """Return, for each output of a layer, the sum of weight times gradient, (outputs,)."""
    parts = [(part.detach(), part.grad) for part in module.parameters(recurse=False)]
    pulls = [(part * grad).reshape(len(part), -1).sum(1) for part, grad in parts if grad is not None]
    return torch.stack(pulls).sum(0)
