"""Which layers are worth factorising, and to which rank: the lowest that keeps a share of their weights' energy."""

import torch
from torch import nn

from fedpress.common.errors import SettingError, unknown
from fedpress.compression.model.choice import Choice
from fedpress.compression.model.factor_layers import WAYS, Factorise, Factors, matrix, suits

FOR_LINEAR = "svd"  # whatever the method for convolutions


def choose(model: nn.Module, by: str, energy: float) -> Choice:
    """Return the step that factorises every layer that has fewer parameters afterwards.

    Parameters
    ----------
    model
        The model; it is not changed.
    by
        The method for convolutions, one of `WAYS`; with `svd` the smaller of `svd` and `spatial` is used for each.
        Linear layers are factorised by `svd`.
    energy
        The share of the sum of squared singular values that the rank keeps, above 0 and at most 1.

    Raises
    ------
    SettingError
        If there is no such method, `energy` is out of range, or no layer would get smaller.
    """
    if by not in WAYS:
        raise SettingError(unknown("way to factorise", by, WAYS))
    if not 0 < energy <= 1:
        raise SettingError(f"the energy to keep must be above 0 and at most 1, got {energy}")
    layers, left = {}, {}
    for name, module in model.named_modules():
        ways = (FOR_LINEAR,) if type(module) is nn.Linear else ("svd", "spatial") if by == "svd" else (by,)
        options = [Factors(way, rank_of(module, way, energy)) for way in ways if suits(module, way)]
        if not options:
            continue
        sizes = [_size(WAYS[it.by](module, it.rank, False)) for it in options]
        least = min(range(len(options)), key=sizes.__getitem__)
        if sizes[least] < _size(module):
            layers[name] = options[least]
        else:
            left[name] = f"{sizes[least]:,} parameters with {energy:.0%} of its energy, {_size(module):,} as it is"
    if not layers:
        raise SettingError(f"no layer of this model gets smaller by {by} with {energy:.0%} of its energy kept")
    return Choice(Factorise(layers), {name: Factorise({name: it}) for name, it in layers.items()}, left)


def rank_of(module: nn.Module, by: str, energy: float) -> int:
    """Return the lowest rank that keeps this share of the energy of a layer's weight."""
    kept = (torch.linalg.svdvals(matrix(module, by).double()) ** 2).cumsum(0)
    return min(int((kept < energy * kept[-1]).sum()) + 1, len(kept))


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
