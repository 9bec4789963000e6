"""Consistency of replies: Flower's strategies abandon a round if one reply differs, so such replies are left out."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from flwr.app import Message
from flwr.serverapp.strategy import Strategy

from fedpress.compression import FrameError
from fedpress.server.aggregation.client_update import (
    ClientUpdate,
    FederationLimits,
    log_refusal,
    read_weight,
    write_weight,
)
from fedpress.server.aggregation.contribution_bounds import bounded_weights


def innermost(strategy: Strategy) -> Strategy:
    """Return the strategy that `strategy` wraps, as flwr's wrappers for privacy do; itself if it wraps none."""
    while isinstance(inner := getattr(strategy, "strategy", None), Strategy):
        strategy = inner
    return strategy


def weighted_by(strategy: Strategy) -> str:
    """Return the name of the metric by which `strategy` weights replies; empty if it is not Flower's and has none."""
    inner = innermost(strategy)
    return str(getattr(inner, "weighted_by_key", "num-examples" if _is_flower(inner) else ""))


def model_key(strategy: Strategy) -> str:
    """Return the name of the ArrayRecord in which `strategy` sends the model."""
    return str(getattr(innermost(strategy), "arrayrecord_key", "arrays"))


def consistent_updates(number: int, strategy: Strategy, updates: Sequence[ClientUpdate]) -> list[ClientUpdate]:
    """Return the updates with the records and metrics that most of them have; log the others.

    Strategies that are not Flower's may accept replies that differ, so they are given all.
    """
    return [updates[at] for at in _majority(number, strategy, [(update.node, update.message) for update in updates])]


def valid_evaluations(
    number: int, strategy: Strategy, replies: Sequence[tuple[str, Message]], limits: FederationLimits
) -> list[Message]:
    """Return the evaluations, given as (node, reply), that `strategy` can average; log the others."""
    if not _is_flower(strategy):
        return [reply for _, reply in replies]
    key, valid, claims = weighted_by(strategy), [], []
    for node, reply in replies:
        try:
            claims.append(read_weight(reply, key))
            valid.append((node, reply))
        except FrameError as error:
            log_refusal(number, node, error)
    for (_, reply), weight in zip(valid, bounded_weights(claims, limits.weight_multiple), strict=True):
        write_weight(reply, key, weight)
    return [valid[at][1] for at in _majority(number, strategy, valid)]


def _is_flower(strategy: Strategy) -> bool:
    return type(strategy).__module__.partition(".")[0] == "flwr"


def _majority(number: int, strategy: Strategy, replies: Sequence[tuple[str, Message]]) -> list[int]:
    """Return the indices of the replies with the signature that most have."""
    signatures = [_signature(reply) for _, reply in replies]
    if not _is_flower(strategy) or len(set(signatures)) < 2:
        return list(range(len(signatures)))
    ((most, _),) = Counter(signatures).most_common(1)
    for (node, _), signature in zip(replies, signatures, strict=True):
        if signature != most:
            log_refusal(number, node, FrameError("its records and metrics must be those that most replies have"))
    return [at for at, signature in enumerate(signatures) if signature == most]


def _signature(reply: Message) -> Any:
    """Return the names of a reply's records and metrics, with the lengths of lists."""
    metrics = [
        (name, sorted((key, len(value) if isinstance(value, list) else None) for key, value in record.items()))
        for name, record in reply.content.metric_records.items()
    ]
    return repr((sorted(reply.content.array_records), metrics))
