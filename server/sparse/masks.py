"""Which weights are live after a round.

`gradual`: the smallest die, more and more of them, Zhu and Gupta 2017, https://arxiv.org/abs/1710.01878.
`feddst`: at once as many as are to be dead in the end; then, now and again, the smallest of them die and others, which
nodes vote for by their gradients, come back: Bibikar et al. 2022, https://arxiv.org/abs/2112.09824. Here nodes vote at
the end of their training, and what comes back begins at zero, as in RigL, Evci et al. 2020.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from flwr.app import ConfigRecord
from numpy.typing import NDArray

from fedpress.compression import Layout, Update
from fedpress.compression.message import REGROW
from fedpress.compression.sparse import Live, Mask, decode_ballot, prunable
from fedpress.server.sparse.settings import Sparsifying
from fedpress.server.sparse.shares import counts


@dataclass(frozen=True)
class Sparsifier:
    """Marks a model's dead weights. It keeps nothing: what is dead now is said by the model before the round."""

    settings: Sparsifying

    def __call__(
        self, number: int, model: Update, before: Update, ballots: Sequence[tuple[float, bytes]] = ()
    ) -> Update:
        """Return the model after round `number`, given the one before it.

        `ballots` are a node's weight, and the dead weights that it would have back, coded.
        """
        layout = Layout.of(model)
        live = Live.of(before, layout)
        wanted = counts(prunable(layout), self.settings.share_dead(number))
        changes = self.settings.changes(number)
        votes = _count(ballots, live, layout) if self.settings.swaps(number) else {}
        result = dict(model)
        for tensor in prunable(layout):
            old = new = live.mask(tensor)
            if changes:
                given = votes.get(tensor.name, np.zeros(tensor.size))
                new = self._next(number, model[tensor.name], old, wanted[tensor.name], given)
            values = np.where((new & old).reshape(tensor.shape), model[tensor.name], 0)
            result |= Live({tensor.name: new}).stamp({tensor.name: values.astype(tensor.dtype)})
        return result

    def ask(self, number: int, config: ConfigRecord) -> ConfigRecord:
        """Return what nodes are told in round `number`: the share of live weights that they vote to have replaced."""
        if not self.settings.swaps(number):
            return config
        return ConfigRecord({**config, REGROW: self.settings.share_swapped(number)})

    def _next(
        self, number: int, weights: NDArray[np.generic], live: Mask, count: int, votes: NDArray[np.float64]
    ) -> Mask:
        """Return which of a tensor's weights are live next, `count` of them."""
        swapped = int(self.settings.share_swapped(number) * count) if self.settings.swaps(number) else 0
        back = min(swapped, int(np.count_nonzero(votes[~live])))
        size = np.abs(np.asarray(weights, np.float64).reshape(-1))
        return _largest(size, live, count - back) | _largest(votes, ~live & (votes > 0), back)


def _count(ballots: Sequence[tuple[float, bytes]], live: Live, layout: Layout) -> dict[str, NDArray[np.float64]]:
    """Return the weight of those who want each weight back; ballots are decoded one at a time."""
    votes = {tensor.name: np.zeros(tensor.size) for tensor in prunable(layout)}
    for weight, ballot in ballots:
        for name, wanted in decode_ballot(ballot, live, layout).items():
            votes[name] += weight * wanted
    return votes


def _largest(values: NDArray[np.float64], among: Mask, count: int) -> Mask:
    """Return where the `count` largest `values` stand that are `among` them; the first of equal ones."""
    at = np.flatnonzero(among)
    order = np.argsort(-values[at], kind="stable")[:count]
    chosen = np.zeros(values.size, np.bool_)
    chosen[at[order]] = True
    return chosen
