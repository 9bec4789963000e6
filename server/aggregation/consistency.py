"""Replies that are alike: over one that is not, Flower's own strategies give the whole round up, so it is left out."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from flwr.app import Message
from flwr.serverapp.strategy import Strategy

from fedpress.compression import FrameError
from fedpress.server.aggregation.client_update import ClientUpdate, FederationLimits, log_refusal, read_weight


def weighted_by(strategy: Strategy) -> str:
    """Return the metric by which `strategy`, or the one that it wraps, weighs replies."""
    while isinstance(inner := getattr(strategy, "strategy", None), Strategy):
        strategy = inner
    return str(getattr(strategy, "weighted_by_key", "num-examples"))


def consistent_updates(number: int, strategy: Strategy, updates: Sequence[ClientUpdate]) -> list[ClientUpdate]:
    """Return the updates whose records and metrics have the names and kinds that most of them have; log the others.

    A strategy of somebody's own may make something of replies that differ, so it gets them all.
    """
    return [updates[at] for at in _most(number, strategy, [(update.node, update.message) for update in updates])]


def valid_evaluations(
    number: int, strategy: Strategy, replies: Sequence[tuple[str, Message]], limits: FederationLimits
) -> list[Message]:
    """Return the evaluations, of (node, reply), that `strategy` can average; log the others."""
    good = []
    for node, reply in replies:
        try:
            if _is_flower(strategy):
                read_weight(reply, weighted_by(strategy), limits)
            good.append((node, reply))
        except FrameError as error:
            log_refusal(number, node, error)
    return [good[at][1] for at in _most(number, strategy, good)]


def _is_flower(strategy: Strategy) -> bool:
    return type(strategy).__module__.partition(".")[0] == "flwr"


def _most(number: int, strategy: Strategy, replies: Sequence[tuple[str, Message]]) -> list[int]:
    """Return where in `replies` those stand that look as most do."""
    looks = [_look(reply) for _, reply in replies]
    if not _is_flower(strategy) or len(set(looks)) < 2:
        return list(range(len(looks)))
    ((most, _),) = Counter(looks).most_common(1)
    for (node, _), look in zip(replies, looks, strict=True):
        if look != most:
            log_refusal(number, node, FrameError("its records and metrics are not those that most replies have"))
    return [at for at, look in enumerate(looks) if look == most]


def _look(reply: Message) -> Any:
    """Return the names of a reply's records, and of its metrics, with how many values a list of them has."""
    metrics = [
        (name, sorted((key, len(value) if isinstance(value, list) else None) for key, value in record.items()))
        for name, record in reply.content.metric_records.items()
    ]
    return repr((sorted(reply.content.array_records), metrics))
