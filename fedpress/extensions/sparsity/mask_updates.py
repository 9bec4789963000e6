"""Which weights are live after a round: Zhu and Gupta 2017, https://arxiv.org/abs/1710.01878.

The smallest die, more and more of them.
"""

import numpy as np
from numpy.typing import NDArray

from fedpress.compression import Layout, Update
from fedpress.compression.weight_masks import Mask, WeightMasks, prunable
from fedpress.extensions.sparsity.layer_densities import counts
from fedpress.extensions.sparsity.settings import SparsitySettings


def prune(settings: SparsitySettings, number: int, model: Update, before: Update) -> Update:
    """Return the model after round `number` with its dead weights marked, given the model before that round.

    The model before has the mask of what is dead, so nothing else has to be kept.
    """
    layout = Layout.of(model)
    before_masks = WeightMasks.of(before, layout)
    masks = {tensor.name: before_masks.mask(tensor) for tensor in prunable(layout)}
    if settings.prunes_after(number):
        wanted = counts(prunable(layout), settings.pruned_share(number))
        masks = {name: _largest(model[name], mask, wanted[name]) for name, mask in masks.items()}
    return WeightMasks(masks).apply(model)


def _largest(weights: NDArray[np.generic], among: Mask, count: int) -> Mask:
    """Return where the `count` largest of `weights` stand that are `among` them; the first of equal ones."""
    at = np.flatnonzero(among)
    sizes = np.abs(np.asarray(weights, np.float64).reshape(-1)[at])
    chosen = np.zeros(among.size, np.bool_)
    chosen[at[np.argsort(-sizes, kind="stable")[:count]]] = True
    return chosen
