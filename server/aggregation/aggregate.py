"""Aggregation: replies become votes, and votes the next model.

Strategies that need nothing but a weighted mean get it streamed: votes are decoded one by one into one accumulator,
whatever the number of clients. All others get every reply, decoded, as they expect it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAdagrad, FedAdam, FedAvg, FedAvgM, FedProx, FedYogi, Strategy

from fedpress.compression import FrameError, Layout, Update
from fedpress.compression.updates import changed
from fedpress.server.aggregation import privacy
from fedpress.server.aggregation.client_update import Vote, refuse
from fedpress.server.aggregation.coverage import Coverage

# Exactly these types, and no subclass of theirs, look at nothing of the replies but mean and metrics.
STREAMING: tuple[type[FedAvg], ...] = (FedAvg, FedProx, FedAvgM, FedAdagrad, FedAdam, FedYogi)


@dataclass(frozen=True)
class Outcome:
    """What a round's votes came to."""

    model: Update  # empty if the strategy made none
    metrics: MetricRecord | None
    votes: list[Vote]  # those that counted


def aggregate(
    strategy: Strategy, number: int, votes: Sequence[Vote], asked: Message, least: int, exact: Update
) -> Outcome | None:
    """Return what `strategy` makes of `votes` in round `number`.

    None, and nothing of it is changed, if fewer than `least` votes count. `asked` is any of the round's messages,
    `exact` the server's model w before the round.
    """
    counted = list(votes)
    if type(strategy) in STREAMING:
        mean = _mean(number, counted, exact)
        if len(counted) < least:
            return None
        return _stream(strategy, number, mean, counted, asked)  # type: ignore[arg-type]
    for vote in votes:
        try:
            (key,) = vote.reply.content.array_records
            model = vote.decode()
            if privacy.divides_by_norm(strategy) and not changed(model, vote.exact):
                raise FrameError(f"its update changes nothing, and {type(strategy).__name__} divides by its norm")
            vote.reply.content[key] = model_record(model)
        except FrameError as error:
            refuse(number, vote.node, error)
            counted.remove(vote)
    if len(counted) < least:
        return None
    arrays, metrics = strategy.aggregate_train(number, [vote.reply for vote in counted])
    return Outcome(_model(arrays), metrics, counted)


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


def _stream(strategy: FedAvg, number: int, mean: Update, votes: list[Vote], asked: Message) -> Outcome:
    """Give `strategy` the mean as the reply of one node, and the metrics of all."""
    total = sum(vote.weight for vote in votes)
    metrics = MetricRecord({strategy.weighted_by_key: total})
    content = RecordDict({strategy.arrayrecord_key: model_record(mean), "metrics": metrics})
    arrays, _ = strategy.aggregate_train(number, [Message(content, reply_to=asked)])
    contents = [vote.reply.content for vote in votes]
    return Outcome(_model(arrays), strategy.train_metrics_aggr_fn(contents, strategy.weighted_by_key), votes)


class _UndecodableError(Exception):
    def __init__(self, vote: Vote, cause: FrameError) -> None:
        super().__init__(str(cause))
        self.vote = vote
        self.cause = cause


def _mean(number: int, votes: list[Vote], exact: Update) -> Update:
    """Return the votes' weighted mean; votes that do not decode are taken out of `votes`.

    The arithmetic is FedAvg's own, in its order, so the result has its bits. Weights are shares of what counts, so
    when a vote falls out the mean is begun again: frames that pass their checksum and do not decode are attacks.
    """
    while votes:
        try:
            return _fold(votes) if votes[0].place is None else _cover(votes, exact)
        except _UndecodableError as error:
            refuse(number, error.vote.node, error.cause)
            votes.remove(error.vote)
    return {}


def _fold(votes: Sequence[Vote]) -> Update:
    total = sum(vote.weight for vote in votes)
    sums: Update = {}
    for vote in votes:
        share = vote.weight / total
        for name, array in _decode(vote).items():
            sums[name] = sums[name] + array * share if name in sums else array * share
    return sums


def _cover(votes: Sequence[Vote], exact: Update) -> Update:
    """Return the mean of models that are parts of the server's, by what each covers."""
    coverage = Coverage(exact, (vote.weight for vote in votes))
    for vote in votes:
        if vote.place is not None:
            coverage.add(_decode(vote), vote.weight, vote.place)
    return coverage.mean()


def _decode(vote: Vote) -> Update:
    try:
        return vote.decode()
    except FrameError as error:
        raise _UndecodableError(vote, error) from error
