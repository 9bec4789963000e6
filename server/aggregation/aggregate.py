"""Aggregation: the updates of a round become the next model.

Strategies that need only a weighted mean are given it: updates are decoded one by one into one accumulator. All others
are given every reply, decoded.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from flwr.app import Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAdagrad, FedAdam, FedAvg, FedAvgM, FedProx, FedYogi, Strategy

from fedpress.common.logs import FLOWER, quiet_flower
from fedpress.compression import FrameError, Layout, Update
from fedpress.compression.updates import changed
from fedpress.protocol.arrays import arrays_of, model_record
from fedpress.server.aggregation import privacy
from fedpress.server.aggregation.client_update import ClientUpdate, log_refusal, read_frame_of
from fedpress.server.aggregation.coverage import Coverage

# Exactly these types, without subclasses, use only the mean and the metrics of replies.
STREAMING: tuple[type[FedAvg], ...] = (FedAvg, FedProx, FedAvgM, FedAdagrad, FedAdam, FedYogi)

_AVERAGED = FedAvg().train_metrics_aggr_fn  # by default: the weighted mean of each metric


@dataclass(frozen=True)
class AggregationResult:
    """The result of a round's aggregation."""

    model: Update = field(default_factory=dict)  # empty if the strategy returned none
    metrics: MetricRecord | None = None
    updates: Sequence[ClientUpdate] = ()  # those that counted


def aggregate(
    strategy: Strategy, number: int, updates: Sequence[ClientUpdate], request: Message, least: int, exact: Update
) -> AggregationResult | None:
    """Return the result of aggregating `updates` in round `number`; None if fewer than `least` of them count.

    Parameters
    ----------
    strategy : Strategy
        Aggregates; its state does not change if the result is None.
    request : Message
        Any of the round's messages.
    exact : Update
        The server's model w before the round.
    """
    counted = list(updates)
    if isinstance(strategy, FedAvg) and _is_streamed(strategy, updates):
        mean = _mean(number, counted, exact)
        if len(counted) < least:
            return None
        return _stream(strategy, number, mean, counted, request)
    for update in updates:
        try:
            key, _ = read_frame_of(update.message)
            model = update.decode()
            if privacy.divides_by_norm(strategy) and not changed(model, update.base.exact):
                raise FrameError(f"its update must not be zero: {type(strategy).__name__} divides by its norm")
            update.message.content[key] = model_record(model)
        except FrameError as error:
            log_refusal(number, update.node, error)
            counted.remove(update)
    if len(counted) < least:
        return None
    arrays, metrics = strategy.aggregate_train(number, [update.message for update in counted])
    return AggregationResult(arrays_of(arrays), metrics, counted)


def cast(model: Update, layout: Layout) -> Update:
    """Return `model` in the layout's dtypes, averages of counters rounded to the nearest integer."""
    result: Update = {}
    for tensor in layout.tensors:
        array = np.asarray(model[tensor.name])
        if not tensor.floating and array.dtype.kind == "f":
            array = np.rint(array)
        with np.errstate(over="ignore"):  # training that diverged is an error of the round
            result[tensor.name] = array.astype(tensor.dtype, copy=False).reshape(tensor.shape)
    return result


def _is_streamed(strategy: FedAvg, updates: Sequence[ClientUpdate]) -> bool:
    """Return whether `strategy` needs no more than the mean: a metrics function of the user's own may need replies."""
    own = strategy.train_metrics_aggr_fn is not _AVERAGED
    parts = any(update.base.place is not None for update in updates)  # which only their mean can be made of
    return type(strategy) in STREAMING and (parts or not own)


def _stream(
    strategy: FedAvg, number: int, mean: Update, updates: list[ClientUpdate], request: Message
) -> AggregationResult:
    """Return the result of aggregating the mean, as one reply, and the metrics of all replies."""
    total = sum(update.weight for update in updates)
    metrics = MetricRecord({strategy.weighted_by_key: total})
    content = RecordDict({strategy.arrayrecord_key: model_record(mean), "metrics": metrics})
    with _metrics_of(strategy, [update.message.content for update in updates]), quiet_flower():
        arrays, aggregated = strategy.aggregate_train(number, [Message(content, reply_to=request)])
    logging.getLogger(FLOWER).info("aggregate_train: Received %d results", len(updates))  # in place of Flower's line
    return AggregationResult(arrays_of(arrays), aggregated, updates)


@contextmanager
def _metrics_of(strategy: FedAvg, replies: list[RecordDict]) -> Iterator[None]:
    """Let the strategy's metrics function be given these replies, and no other, within the context."""
    function = strategy.train_metrics_aggr_fn
    strategy.train_metrics_aggr_fn = lambda _, key: function(replies, key)
    try:
        yield
    finally:
        strategy.train_metrics_aggr_fn = function


class _UndecodableError(Exception):
    def __init__(self, update: ClientUpdate, cause: FrameError) -> None:
        super().__init__(str(cause))
        self.update = update
        self.cause = cause


def _mean(number: int, updates: list[ClientUpdate], exact: Update) -> Update:
    """Return the weighted mean of updates; those that do not decode are removed from `updates`.

    The arithmetic is that of FedAvg, in its order, so the result has the same bits. Weights are shares of the updates
    that count, so the mean starts again without one that does not decode: such frames are rare.
    """
    while updates:
        try:
            return _weighted_mean(updates) if updates[0].base.place is None else _mean_of_parts(updates, exact)
        except _UndecodableError as error:
            log_refusal(number, error.update.node, error.cause)
            updates.remove(error.update)
    return {}


def _weighted_mean(updates: Sequence[ClientUpdate]) -> Update:
    total = sum(update.weight for update in updates)
    sums: Update = {}
    for update in updates:
        share = update.weight / total
        for name, array in _decode(update).items():
            sums[name] = sums[name] + array * share if name in sums else array * share
    return sums


def _mean_of_parts(updates: Sequence[ClientUpdate], exact: Update) -> Update:
    """Return the mean of models that are parts of the server's, elementwise over the parts that cover it."""
    coverage = Coverage(exact, (update.weight for update in updates))
    for update in updates:
        if update.base.place is not None:
            coverage.add(_decode(update), update.weight, update.base.place)
    return coverage.mean()


def _decode(update: ClientUpdate) -> Update:
    try:
        return update.decode()
    except FrameError as error:
        raise _UndecodableError(update, error) from error
