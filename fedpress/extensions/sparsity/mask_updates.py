"""Gradual magnitude pruning: Zhu and Gupta 2017, https://arxiv.org/abs/1710.01878.

The smallest weights are pruned, a growing share of them.
"""

import numpy as np
from numpy.typing import NDArray

from fedpress.compression import Layout, Update
from fedpress.compression.weight_masks import Mask, WeightMasks, prunable
from fedpress.extensions.sparsity.layer_densities import counts
from fedpress.extensions.sparsity.settings import SparsitySettings


def prune(settings: SparsitySettings, number: int, model: Update, before: Update) -> Update:
    """Return the model after round `number` with its pruned weights marked, given the model before that round.

    The mask is read from the model before the round, so no further state is needed.
    """
    layout = Layout.of(model)
    before_masks = WeightMasks.of(before, layout)
    masks = {tensor.name: before_masks.mask(tensor) for tensor in prunable(layout)}
    if settings.prunes_after(number):
        wanted = counts(prunable(layout), settings.pruned_share(number))
        masks = {name: _largest(model[name], mask, wanted[name]) for name, mask in masks.items()}
    return WeightMasks(masks).apply(model)


def _largest(weights: NDArray[np.generic], candidates: Mask, count: int) -> Mask:
    """Return the mask of the `count` largest `weights` candidates `candidates`; ties go to the first."""
    indices = np.flatnonzero(candidates)
    magnitudes = np.abs(np.asarray(weights, np.float64).reshape(-1)[indices])
    chosen = np.zeros(candidates.size, np.bool_)
    chosen[indices[np.argsort(-magnitudes, kind="stable")[:count]]] = True
    return chosen
