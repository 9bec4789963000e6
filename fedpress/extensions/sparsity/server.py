"""Gradual pruning of the federation's model."""

from collections.abc import Mapping
from typing import Any

from fedpress.compression import Update
from fedpress.extensions.sparsity.layer_densities import share_pruned
from fedpress.extensions.sparsity.mask_updates import prune
from fedpress.extensions.sparsity.settings import SparsitySettings
from fedpress.server.extension import BuildContext, Extension, Property, RoundContext
from fedpress.server.strategy.round_record import Round


class Sparsity(Extension):
    """Prunes a growing share of the smallest weights; it keeps no state, since pruned weights are minus zero.

    Parameters
    ----------
    settings : SparsitySettings
        The share of weights that are pruned, and when.

    Examples
    --------
    >>> Sparsity(SparsitySettings()).prunes
    True
    """

    name = "sparsity"
    settings: SparsitySettings
    needs = frozenset({Property.ONE_MODEL})
    removes = frozenset({Property.FREE_WEIGHTS})
    prunes = True

    def __init__(self, settings: SparsitySettings) -> None:
        self.settings = settings

    def after_aggregation(self, model: Update, context: RoundContext) -> Update:
        return prune(self.settings, context.number, model, context.previous)

    def round_facts(self, done: Round) -> Mapping[str, Any]:
        return {"pruned": share_pruned(done.model)}


def build(settings: SparsitySettings, _: BuildContext) -> Sparsity:
    """Return the extension that `settings` describe."""
    return Sparsity(settings)
