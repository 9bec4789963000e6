"""Aggregation: the updates of a round become the next model.

Strategies that need only a weighted mean are given it: updates are decoded one by one into one accumulator. All others
are given every reply, decoded.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
from flwr.app import Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAdagrad, FedAdam, FedAvg, FedAvgM, FedProx, FedYogi, Strategy
from numpy.typing import NDArray

from fedpress.common.logs import FLOWER, quiet_flower
from fedpress.compression import FrameError, Layout, Update
from fedpress.compression.updates import changed
from fedpress.protocol.arrays import arrays_of, model_record
from fedpress.server.aggregation import privacy
from fedpress.server.aggregation.client_update import ClientUpdate, log_refusal
from fedpress.server.aggregation.contribution_bounds import ContributionBounds
from fedpress.server.aggregation.coverage import Coverage

# Exactly these types, without subclasses, use only the mean and the metrics of replies.
STREAMING: tuple[type[FedAvg], ...] = (FedAvg, FedProx, FedAvgM, FedAdagrad, FedAdam, FedYogi)

_AVERAGED = FedAvg().train_metrics_aggr_fn  # by default: the weighted mean of each metric


@dataclass(frozen=True)
class UpdateEnergy:
    """The squared norms of a round's updates as they were decoded, over the tensors that codecs approximate.

    Examples
    --------
    Two updates of norm 2 that have nothing in common, each with a weight of a half:

    >>> UpdateEnergy(mean=2.0, if_orthogonal=2.0).if_orthogonal
    2.0
    """

    mean: float  # of their weighted mean
    if_orthogonal: (
        float  # of a weighted mean of updates that have nothing in common: each one's times its squared share
    )


@dataclass(frozen=True)
class AggregationResult:
    """The result of a round's aggregation."""

    model: Update = field(default_factory=dict)  # empty if the strategy returned none
    metrics: MetricRecord | None = None
    updates: Sequence[ClientUpdate] = ()  # those that counted
    norms: Sequence[float] = ()  # of these updates, as they were sent
    energy: UpdateEnergy | None = None  # of these updates; None if nodes have different parts of the model


def aggregate(
    strategy: Strategy,
    number: int,
    updates: Sequence[ClientUpdate],
    *,
    request: Message,
    least: int,
    exact: Update,
    bounds: ContributionBounds,
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
    bounds : ContributionBounds
        Bounds the weights and the norms of the updates; tracks the norms of those that count.
    """
    weighed = bounds.weigh(number, updates)
    streams = _is_streamed(strategy, updates)
    read = _mean(number, weighed, exact) if streams else _decode_all(strategy, number, weighed)
    if len(read.updates) < least:
        return None
    clipped = bounds.clip(number, read.updates, read.norms)
    bounds.observe(read.updates, read.norms)
    if clipped != read.updates:  # rare: updates are read again, so that no more than one model is held at a time
        again = _mean(number, clipped, exact) if streams else _decode_all(strategy, number, clipped)
        read = replace(again, norms=read.norms)
    if isinstance(strategy, FedAvg) and streams:
        return replace(_stream(strategy, number, read, request), energy=_energy(read, exact))
    energy = _energy(read, exact)  # before the strategy, which may change the messages
    with privacy.noise_for(strategy, len(read.updates)):
        arrays, metrics = strategy.aggregate_train(number, [update.message for update in read.updates])
    return AggregationResult(arrays_of(arrays), metrics, read.updates, read.norms, energy)


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


def _is_streamed(strategy: Strategy, updates: Sequence[ClientUpdate]) -> bool:
    """Return whether `strategy` needs no more than the mean: a metrics function of the user's own may need replies."""
    if not isinstance(strategy, FedAvg) or type(strategy) not in STREAMING:
        return False
    own = strategy.train_metrics_aggr_fn is not _AVERAGED
    parts = any(update.base.place is not None for update in updates)  # which only their mean can be made of
    return parts or not own


@dataclass(frozen=True)
class _DecodedUpdates:
    """The updates of a round that decode."""

    updates: list[ClientUpdate]
    norms: list[float]  # of each, as it was sent
    coded_norms: list[float]  # of each, as it counts, over the tensors that codecs approximate
    mean: Update = field(default_factory=dict)  # empty if it is not computed


def _stream(strategy: FedAvg, number: int, read: _DecodedUpdates, request: Message) -> AggregationResult:
    """Return the result of aggregating the mean, as one reply, and the metrics of all replies."""
    total = sum(update.weight for update in read.updates)
    metrics = MetricRecord({strategy.weighted_by_key: total})
    content = RecordDict({strategy.arrayrecord_key: model_record(read.mean), "metrics": metrics})
    with _metrics_of(strategy, [update.message.content for update in read.updates]), quiet_flower():
        arrays, aggregated = strategy.aggregate_train(number, [Message(content, reply_to=request)])
    count = len(read.updates)
    logging.getLogger(FLOWER).info("aggregate_train: Received %d results", count)  # in place of Flower's line
    return AggregationResult(arrays_of(arrays), aggregated, read.updates, read.norms)


@contextmanager
def _metrics_of(strategy: FedAvg, replies: list[RecordDict]) -> Iterator[None]:
    """Let the strategy's metrics function be given these replies, and no other, within the context."""
    function = strategy.train_metrics_aggr_fn
    strategy.train_metrics_aggr_fn = lambda _, key: function(replies, key)
    try:
        yield
    finally:
        strategy.train_metrics_aggr_fn = function


def _energy(read: _DecodedUpdates, exact: Update) -> UpdateEnergy | None:
    """Return the squared norms of updates and of their mean; None if nodes have different parts of the model."""
    if any(update.base.place is not None for update in read.updates):
        return None
    total = sum(update.weight for update in read.updates)
    shares = [update.weight / total for update in read.updates]
    mean = 0.0
    for tensor in Layout.of(exact).lossy:
        moved: NDArray[np.float64] = -exact[tensor.name].astype(np.float64)
        if read.mean:
            moved += read.mean[tensor.name]
        else:
            for update, share in zip(read.updates, shares, strict=True):
                moved += share * update.message.content.array_records[update.record][tensor.name].numpy()
        mean += float(np.square(moved).sum())
    return UpdateEnergy(mean, sum((s * n) ** 2 for s, n in zip(shares, read.coded_norms, strict=True)))


def _decode_all(strategy: Strategy, number: int, updates: Sequence[ClientUpdate]) -> _DecodedUpdates:
    """Put the model of each update into its message; leave out those that do not decode."""
    read = _DecodedUpdates([], [], [])
    for update in updates:
        try:
            model, norm, coded_norm = update.decode_with_norms()
            if privacy.divides_by_norm(strategy) and not changed(model, update.base.exact):
                raise FrameError(f"its update must not be zero: {type(strategy).__name__} divides by its norm")
        except FrameError as error:
            log_refusal(number, update.node, error)
            continue
        update.message.content[update.record] = model_record(model)
        read.updates.append(update)
        read.norms.append(norm)
        read.coded_norms.append(coded_norm)
    return read


class _UndecodableError(Exception):
    def __init__(self, update: ClientUpdate, cause: FrameError) -> None:
        super().__init__(str(cause))
        self.update = update
        self.cause = cause


def _mean(number: int, updates: Sequence[ClientUpdate], exact: Update) -> _DecodedUpdates:
    """Return the weighted mean of the updates that decode.

    The arithmetic is that of FedAvg, in its order, so the result has the same bits. Weights are shares of the updates
    that count, so the mean starts again without one that does not decode: such frames are rare.
    """
    left = list(updates)
    while left:
        read = _DecodedUpdates(left, [], [])
        try:
            # A sum that overflows holds an update that is clipped when it is read again.
            with np.errstate(over="ignore", invalid="ignore"):
                whole = left[0].base.place is None
                return replace(read, mean=_weighted_mean(read) if whole else _mean_of_parts(read, exact))
        except _UndecodableError as error:
            log_refusal(number, error.update.node, error.cause)
            left.remove(error.update)
    return _DecodedUpdates([], [], [])


def _weighted_mean(read: _DecodedUpdates) -> Update:
    total = sum(update.weight for update in read.updates)
    sums: Update = {}
    for update in read.updates:
        share = update.weight / total
        for name, array in _decode(update, read).items():
            sums[name] = sums[name] + array * share if name in sums else array * share
    return sums


def _mean_of_parts(read: _DecodedUpdates, exact: Update) -> Update:
    """Return the mean of models that are parts of the server's, elementwise over the parts that cover it."""
    coverage = Coverage(exact, (update.weight for update in read.updates))
    for update in read.updates:
        if update.base.place is not None:
            coverage.add(_decode(update, read), update.weight, update.base.place)
    return coverage.mean()


def _decode(update: ClientUpdate, read: _DecodedUpdates) -> Update:
    """Return the update's model, and add its norms to those of `read`."""
    try:
        model, norm, coded_norm = update.decode_with_norms()
    except FrameError as error:
        raise _UndecodableError(update, error) from error
    read.norms.append(norm)
    read.coded_norms.append(coded_norm)
    return model
