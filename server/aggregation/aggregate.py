"""Aggregation: the updates of a round become the next model.

Strategies that need nothing but a weighted mean get it streamed: updates are decoded one by one into one accumulator,
whatever the number of clients. All others get every reply, decoded, as they expect it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAdagrad, FedAdam, FedAvg, FedAvgM, FedProx, FedYogi, Strategy

from fedpress.compression import FrameError, Layout, Update
from fedpress.compression.updates import changed
from fedpress.server.aggregation import privacy
from fedpress.server.aggregation.client_update import ClientUpdate, log_refusal
from fedpress.server.aggregation.coverage import Coverage

# Exactly these types, and no subclass of theirs, look at nothing of the replies but mean and metrics.
STREAMING: tuple[type[FedAvg], ...] = (FedAvg, FedProx, FedAvgM, FedAdagrad, FedAdam, FedYogi)


@dataclass(frozen=True)
class AggregationResult:
    """The result of a round's aggregation."""

    model: Update = field(default_factory=dict)  # empty if the strategy made none
    metrics: MetricRecord | None = None
    updates: Sequence[ClientUpdate] = ()  # those that counted


def aggregate(
    strategy: Strategy, number: int, updates: Sequence[ClientUpdate], asked: Message, least: int, exact: Update
) -> AggregationResult | None:
    """Return what `strategy` makes of `updates` in round `number`.

    None, and nothing of it is changed, if fewer than `least` updates count. `asked` is any of the round's messages,
    `exact` the server's model w before the round.
    """
    counted = list(updates)
    if type(strategy) in STREAMING:
        mean = _mean(number, counted, exact)
        if len(counted) < least:
            return None
        return _stream(strategy, number, mean, counted, asked)  # type: ignore[arg-type]
    for update in updates:
        try:
            (key,) = update.message.content.array_records
            model = update.decode()
            if privacy.divides_by_norm(strategy) and not changed(model, update.base.exact):
                raise FrameError(f"its update changes nothing, and {type(strategy).__name__} divides by its norm")
            update.message.content[key] = model_record(model)
        except FrameError as error:
            log_refusal(number, update.node, error)
            counted.remove(update)
    if len(counted) < least:
        return None
    arrays, metrics = strategy.aggregate_train(number, [update.message for update in counted])
    return AggregationResult(_model(arrays), metrics, counted)


def cast(model: Update, layout: Layout) -> Update:
    """Return `model` in the layout's dtypes; averages of counters are rounded to the nearest, ties to even."""
    result: Update = {}
    for tensor in layout.tensors:
        array = np.asarray(model[tensor.name])
        if not tensor.floating and array.dtype.kind == "f":
            array = np.rint(array)
        result[tensor.name] = array.astype(tensor.dtype, copy=False).reshape(tensor.shape)
    return result


def model_record(model: Update) -> ArrayRecord:
    """Return `model` as the ArrayRecord that strategies expect."""
    return ArrayRecord({name: Array(np.asarray(array)) for name, array in model.items()})


def _model(arrays: ArrayRecord | None) -> Update:
    return {name: array.numpy() for name, array in arrays.items()} if arrays else {}


def _stream(
    strategy: FedAvg, number: int, mean: Update, updates: list[ClientUpdate], asked: Message
) -> AggregationResult:
    """Give `strategy` the mean as the reply of one node, and the metrics of all."""
    total = sum(update.weight for update in updates)
    metrics = MetricRecord({strategy.weighted_by_key: total})
    content = RecordDict({strategy.arrayrecord_key: model_record(mean), "metrics": metrics})
    arrays, _ = strategy.aggregate_train(number, [Message(content, reply_to=asked)])
    contents = [update.message.content for update in updates]
    return AggregationResult(
        _model(arrays), strategy.train_metrics_aggr_fn(contents, strategy.weighted_by_key), updates
    )


class _UndecodableError(Exception):
    def __init__(self, update: ClientUpdate, cause: FrameError) -> None:
        super().__init__(str(cause))
        self.update = update
        self.cause = cause


def _mean(number: int, updates: list[ClientUpdate], exact: Update) -> Update:
    """Return the weighted mean of updates; those that do not decode are taken out of `updates`.

    The arithmetic is FedAvg's own, in its order, so the result has its bits. Weights are shares of what counts, so
    when one falls out the mean is begun again: frames that pass their checksum and do not decode are attacks.
    """
    while updates:
        try:
            return _fold(updates) if updates[0].base.place is None else _cover(updates, exact)
        except _UndecodableError as error:
            log_refusal(number, error.update.node, error.cause)
            updates.remove(error.update)
    return {}


def _fold(updates: Sequence[ClientUpdate]) -> Update:
    total = sum(update.weight for update in updates)
    sums: Update = {}
    for update in updates:
        share = update.weight / total
        for name, array in _decode(update).items():
            sums[name] = sums[name] + array * share if name in sums else array * share
    return sums


def _cover(updates: Sequence[ClientUpdate], exact: Update) -> Update:
    """Return the mean of models that are parts of the server's, by what each covers."""
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
