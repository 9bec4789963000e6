"""Bounds on one reply's contribution, adaptive clipping, Andrew et al. 2019, https://arxiv.org/abs/1905.03871.

A reply counts with at most a multiple of the median weight that the round's replies claim. An update whose norm exceeds
a multiple of the usual one is scaled down to that; for a reply that weighs more than the median the bound is lower in
proportion, so that no reply moves the mean further than the multiple of a usual one. The usual norm is the round's
median or, if that is larger or there is only one reply, a median that is tracked over rounds as in the paper.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fedpress.common.logs import LOGGER
from fedpress.server.aggregation.client_update import ClientUpdate

_log = logging.getLogger(LOGGER)

_RATE = 0.2  # of the tracked norm's change, the paper's: at most 10 % a round


def bounded_weights(claims: Sequence[float], multiple: float) -> list[float]:
    """Return weights that are at most a multiple of the median claim, the lower one of two.

    Examples
    --------
    >>> bounded_weights([10, 12, 1e9], 3.0)
    [10, 12, 36.0]
    """
    return [min(claim, multiple * _median(claims)) for claim in claims]


@dataclass
class ContributionBounds:
    """The bounds on the contributions of one federation's replies, with the norms that it tracks.

    Examples
    --------
    >>> ContributionBounds(norm_multiple=3.0, weight_multiple=3.0, private=False).dump_state()
    {}
    """

    norm_multiple: float  # of the usual norm; infinity for no bound
    weight_multiple: float  # of the median weight; infinity for no bound
    private: bool  # whether the strategy adds noise for privacy: it clips by itself, and its replies weigh the same
    _tracked: dict[str, float] = field(default_factory=dict)  # by group of nodes, the median norm

    def weigh(self, number: int, updates: Sequence[ClientUpdate]) -> list[ClientUpdate]:
        """Return the updates of a round with bounded weights; where noise is added for privacy, with equal ones."""
        claims = [update.claim for update in updates]
        weights = [1.0] * len(claims) if self.private else bounded_weights(claims, self.weight_multiple)
        for update, weight in zip(updates, weights, strict=True):
            if weight < update.claim and not self.private:
                _log.info(
                    "round %d: node %s claims the weight %.6g: it counts with %.6g, %g times the median",
                    *(number, update.node, update.claim, weight, self.weight_multiple),
                )
        return [update.weighted(weight) for update, weight in zip(updates, weights, strict=True)]

    def clip(self, number: int, updates: Sequence[ClientUpdate], norms: Sequence[float]) -> list[ClientUpdate]:
        """Return the updates, those with norms beyond their bounds with these bounds; the same objects otherwise."""
        if self.private or not updates:
            return list(updates)
        usual = {group: self._usual(group, of_group) for group, of_group in _by_group(updates, norms).items()}
        middle = _median([update.weight for update in updates])
        clipped = []
        for update, norm in zip(updates, norms, strict=True):
            bound = self.norm_multiple * usual[update.base.group] * min(1.0, middle / update.weight)
            if norm > bound:
                bound = min(bound, update.clip_norm)
                _log.warning(
                    "round %d: node %s: its update has norm %.6g and counts with %.6g, %g times the usual one",
                    *(number, update.node, norm, bound, bound / usual[update.base.group]),
                )
                clipped.append(replace(update, clip_norm=bound))
            else:
                clipped.append(update)
        return clipped

    def observe(self, updates: Sequence[ClientUpdate], norms: Sequence[float]) -> None:
        """Track the norms of a round's replies, as they were sent."""
        for group, of_group in _by_group(updates, norms).items():
            if group in self._tracked:
                below = sum(norm <= self._tracked[group] for norm in of_group) / len(of_group)
                self._tracked[group] *= math.exp(-_RATE * (below - 0.5))
            elif positive := [norm for norm in of_group if norm > 0]:
                self._tracked[group] = _median(positive)

    def dump_state(self) -> dict[str, float]:
        """Return the tracked norms."""
        return dict(self._tracked)

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore the norms that `dump_state` returned."""
        self._tracked = dict(state)

    def _usual(self, group: str, norms: Sequence[float]) -> float:
        positive = [norm for norm in norms if norm > 0]
        if group not in self._tracked:
            return _median(positive) if positive else math.inf
        return max(self._tracked[group], _median(positive) if len(positive) > 1 else 0.0)


def _by_group(updates: Sequence[ClientUpdate], norms: Sequence[float]) -> dict[str, list[float]]:
    groups: dict[str, list[float]] = {}
    for update, norm in zip(updates, norms, strict=True):
        groups.setdefault(update.base.group, []).append(norm)
    return groups


def _median(values: Sequence[float]) -> float:
    """Return the median, the lower one of two: half of the values cannot raise it."""
    return sorted(values)[(len(values) - 1) // 2]
