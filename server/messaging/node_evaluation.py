"""Asks nodes what they think of models: each evaluates them on what it holds out, and the bytes are counted."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp.strategy import Strategy

from fedpress.compression import FrameError, Update, parse
from fedpress.protocol.messages import LOSSLESS
from fedpress.server.aggregation.aggregate import cast, model_record
from fedpress.server.aggregation.client_update import Bounds, Vote, read_weight, refuse
from fedpress.server.aggregation.consistency import judged, weighted_by
from fedpress.server.messaging.exchange import Exchange


@dataclass(frozen=True)
class Score:
    """How good a model is by some measure."""

    loss: float
    accuracy: float  # share of examples, in [0, 1]


Ask = Callable[[Sequence[Update]], list[Score]]  # what nodes say of models, empty if nobody says anything of all
Distil = Callable[[Update, Sequence[Vote], np.random.Generator], Update]
Facts = dict[str, Any]  # for a round's record: what JSON holds


@dataclass(frozen=True)
class Part:
    """What a distillation may do in a round, beside returning a model."""

    ask: Ask
    note: Callable[[Facts], None]
    began: Update | None  # the model that the round began with, None if it was not trained yet


@runtime_checkable
class TakesPart(Protocol):
    """A distillation that asks nodes, or notes facts."""

    def part(self, part: Part) -> Distil:
        """Return the distillation of the round that `part` belongs to."""


def ask_nodes(
    votes: Sequence[Vote],
    number: int,
    exchange: Exchange,
    strategy: Strategy,
    bounds: Bounds,
    timeout: float,
    config: ConfigRecord,
    models: Sequence[Update],
) -> list[Score]:
    """Return mean loss and accuracy of each model over the nodes of `votes` that evaluated all; empty if none did.

    Nodes are sent each model as if it were the round's, so what they hold afterwards is known; the downlink's own
    course is as if they had not been asked.
    """
    held = exchange.models
    course = held.save()
    said: list[dict[str, tuple[float, Score]]] = []
    for model in models:
        held.resume(course, number)
        held.advance(cast(model, held.layout), number)
        arrays, settings = model_record(held.model), ConfigRecord({**config, "server-round": number})
        messages = [
            Message(
                RecordDict({"arrays": arrays, "config": settings}),
                vote.reply.metadata.src_node_id,
                MessageType.EVALUATE,
            )
            for vote in votes
        ]
        delivery = exchange.deliver(number, messages, timeout, lambda *_: parse(LOSSLESS))
        replies = [(reply.node, reply.message) for reply in delivery.replies]
        names = {reply.message.metadata.src_node_id: reply.node for reply in delivery.replies}
        scores = {}
        for reply in judged(number, strategy, replies, bounds):
            node = names[reply.metadata.src_node_id]
            try:
                scores[node] = read_weight(reply, weighted_by(strategy), bounds), _read_score(reply)
            except FrameError as error:
                refuse(number, node, error)
        said.append(scores)
    held.resume(course, number)
    both = [node for node in said[0] if all(node in scores for scores in said)]
    total = sum(said[0][node][0] for node in both)
    return [_mean([scores[node] for node in both], total) for scores in said] if both else []


def _mean(scores: Sequence[tuple[float, Score]], total: float) -> Score:
    weights = [weight / total for weight, _ in scores]
    loss = sum(w * score.loss for w, (_, score) in zip(weights, scores, strict=True))
    return Score(loss, sum(w * score.accuracy for w, (_, score) in zip(weights, scores, strict=True)))


def _read_score(reply: Message) -> Score:
    """Return what a node says of a model; raise FrameError if it says nothing that can be."""
    (metrics,) = reply.content.metric_records.values()
    loss, accuracy = metrics.get("loss"), metrics.get("accuracy")
    if not isinstance(loss, int | float) or not 0 <= loss < math.inf:
        raise FrameError(f"an evaluation's loss is a finite number from 0 on, got {loss!r}")
    if not isinstance(accuracy, int | float) or not 0 <= accuracy <= 1:
        raise FrameError(f"an evaluation's accuracy is in [0, 1], got {accuracy!r}")
    return Score(float(loss), float(accuracy))
