"""Structured pruning: removes a share of every layer's channels, the least important, through the whole graph."""

import numpy as np
from torch import Tensor, nn

from fedpress.common.errors import SettingError, unknown
from fedpress.compression.model.channel_importance import CRITERIA, Scores
from fedpress.compression.model.dependency_graph import ChannelGroup, Indices, channel_groups, prune
from fedpress.compression.model.evaluation import Batches
from fedpress.compression.model.step import Choice


def choose(model: nn.Module, x: Tensor, share: float, by: str, batches: Batches) -> Choice:
    """Return the step that removes `share` of all channels that can be removed.

    Parameters
    ----------
    model : nn.Module
        The model to be pruned; it is not changed.
    x : Tensor
        A few inputs, (n, ...), for tracing.
    share : float
        Of the channels of every layer, above 0 and below 1; at least one of each is kept.
    by : str
        One of `CRITERIA`.
    batches : Batches
        Examples for the importance of channels; `l1` uses none.

    Raises
    ------
    SettingError
        If there is no such criterion, `share` is out of range, or the model has no channels that can be removed.
    """
    if by not in CRITERIA:
        raise SettingError(unknown("criterion", by, CRITERIA))
    if not 0 < share < 1:
        raise SettingError(f"the share to prune must be above 0 and below 1, got {share}")
    found, left = channel_groups(model, x)
    if not found:
        raise SettingError("nothing of this model can be pruned: no channel runs from one layer into another")
    scores = CRITERIA[by](model, found, batches)
    chosen = [(it, _best(it, score, share)) for it, score in zip(found, scores, strict=True)]
    chosen = [(it, kept) for it, kept in chosen if len(kept) < it.width]
    if not chosen:
        raise SettingError(f"the share to prune must be at least one channel of a layer, got {share}")
    order = [name for name, _ in model.named_modules()]
    chosen.sort(key=lambda pair: order.index(pair[0].name))
    return Choice(prune(chosen), {it.name: prune([(it, kept)]) for it, kept in chosen}, left)


def _best(it: ChannelGroup, score: Scores, share: float) -> Indices:
    """Return the indices of the channels to keep, ascending: as many of each block."""
    each = it.width // it.blocks
    stay = max(1, round((1 - share) * each))
    order = np.argsort(-score.reshape(it.blocks, each), axis=1, kind="stable")[:, :stay]
    return np.sort((order + each * np.arange(it.blocks)[:, None]).ravel())
