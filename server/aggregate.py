"""Aggregation: replies become votes, and votes the next model.

Strategies that need nothing but a weighted mean get it streamed: votes are decoded one by one into one accumulator,
whatever the number of clients. All others get every reply, decoded, as they expect it.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAdagrad, FedAdam, FedAvg, FedAvgM, FedProx, FedYogi, Strategy

from fedpress.compression import Codec, FrameError, Layout, Update
from fedpress.compression.message import FRAME_STYPE, KEY, LOSSLESS, apply, changed, difference
from fedpress.compression.slices import Coverage, Slice
from fedpress.compression.sparse import Live
from fedpress.server import privacy
from fedpress.server.versions import Versions

_log = logging.getLogger(KEY)

# Exactly these types, and no subclass of theirs, look at nothing of the replies but mean and metrics.
STREAMING: tuple[type[FedAvg], ...] = (FedAvg, FedProx, FedAvgM, FedAdagrad, FedAdam, FedYogi)


@dataclass(frozen=True)
class Bounds:
    """What an update may be: whoever sends more is refused."""

    norm: float = math.inf  # L2, of the floating-point tensors together
    examples: float = 1e9  # a node that claims more would outvote all others
    clip: float = math.inf  # an update of a larger L2 norm is scaled down to it


@dataclass(frozen=True)
class Work:
    """How long a node worked for its reply, seconds, as it says."""

    training: float = 0.0  # in its app
    coding: float = 0.0  # decoding the model and encoding the update


@dataclass(eq=False)
class Vote:
    """One node's reply to a training message, its model still a frame."""

    node: str
    weight: float
    frame: bytes
    reply: Message
    exact: Update  # w, or its node's part of it: the model that the update is to be added to
    versions: Versions  # holds the model that the node started from, if that is not w
    live: Live  # the weights of w, and of every model that nodes start from in this round, that are live
    layout: Layout
    part: Layout  # of the tensors that the frame holds
    codec: Codec
    version: bytes  # name of the model that the node started from
    before: bytes  # name of the model that it held before that; empty if that is not known at both ends
    bounds: Bounds
    work: Work
    group: str = ""  # of its node
    place: Slice | None = None  # where its model lies in the server's; None if it is all of it

    def decode(self) -> Update:
        """Return w plus the node's update; raise FrameError if it does not decode to tensors within the bounds."""
        whole = str(self.codec) == LOSSLESS
        base = b"" if whole else self.version
        sent = self.codec.decode(self.frame, self.live.part(self.part), side=self._side(), base=base)
        sent = self.live.put(sent, self.part)
        if whole and self.version in self.versions:  # what changed is counted from where the node stood
            sent, whole = difference(sent, self.versions.get(self.version), self.part), False
        update = difference(sent, self.exact, self.part) if whole else sent
        with np.errstate(over="ignore"):
            square = sum(float(np.square(update[t.name], dtype=np.float64).sum()) for t in self.part.floating)
            norm = math.sqrt(square)
            if norm > self.bounds.norm:
                raise FrameError(f"its update's norm is {norm:.6g}, at most {self.bounds.norm:.6g} is taken")
            if norm > self.bounds.clip:
                share = np.float32(self.bounds.clip / norm)
                update |= {tensor.name: update[tensor.name] * share for tensor in self.part.floating}
                whole = False
            model = {**self.exact, **sent} if whole else apply(self.exact, update, self.layout)
            for tensor in self.part.floating:  # in float32, to which the server will round it, whatever its width
                if not np.isfinite(np.asarray(model[tensor.name], np.float32)).all():
                    raise FrameError(f"tensor {tensor.name!r} is not finite in float32")
        return model

    def _side(self) -> Update | None:
        """Return the delta that the node was sent last: what changed there is likely to change again."""
        if self.before not in self.versions or self.version not in self.versions:
            return None
        return self.live.take(difference(self.versions.get(self.version), self.versions.get(self.before), self.part))


@dataclass(frozen=True)
class Outcome:
    """What a round's votes came to."""

    model: Update  # empty if the strategy made none
    metrics: MetricRecord | None
    votes: list[Vote]  # those that counted


def read_weight(reply: Message, weighted_by: str, bounds: Bounds) -> float:
    """Return how much a reply weighs; raise FrameError if it does not say, or nothing that can be."""
    metrics = list(reply.content.metric_records.values())
    if len(metrics) != 1:
        raise FrameError(f"a reply holds one MetricRecord, got {len(metrics)}")
    weight = metrics[0].get(weighted_by)
    if not isinstance(weight, int | float) or not 0 < weight <= bounds.examples:
        raise FrameError(f"{weighted_by} is above 0 and at most {bounds.examples:g}, got {weight!r}")
    return float(weight)


def read_frame_of(reply: Message) -> bytes:
    """Return the frame of a reply; raise FrameError if it does not hold one, and no other array."""
    arrays = [array for record in reply.content.array_records.values() for array in record.values()]
    if len(arrays) != 1 or arrays[0].stype != FRAME_STYPE:
        raise FrameError("a reply holds one frame and no other array")
    return arrays[0].data


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


def refuse(number: int, node: str, error: Exception) -> None:
    """Log that a node's reply does not count."""
    _log.warning("round %d: node %s: its reply is refused: %s", number, node, error)


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
