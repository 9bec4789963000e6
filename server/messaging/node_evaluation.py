"""Evaluates models on the examples that nodes hold out, and counts the bytes."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp.strategy import Strategy

from fedpress.compression import FrameError, Update, parse
from fedpress.protocol.arrays import model_record
from fedpress.protocol.messages import LOSSLESS
from fedpress.server.aggregation.aggregate import cast
from fedpress.server.aggregation.client_update import ClientUpdate, FederationLimits, log_refusal, read_weight
from fedpress.server.aggregation.consistency import valid_evaluations, weighted_by
from fedpress.server.messaging.exchange import Exchange


@dataclass(frozen=True)
class ModelScore:
    """Loss and accuracy of a model."""

    loss: float
    accuracy: float  # share of examples, in [0, 1]


Ask = Callable[
    [Sequence[Update]], list[ModelScore]
]  # the nodes' scores of models; empty if no node evaluated all of them


@dataclass(frozen=True)
class NodeEvaluation:
    """Evaluates models on the nodes that sent a round's updates.

    Nodes are sent each model as if it were the round's, and the server records which model each of them holds
    afterwards. The state of the downlink is restored.
    """

    number: int  # of the round
    updates: Sequence[ClientUpdate]
    exchange: Exchange
    strategy: Strategy  # defines the metric that replies are weighted by
    limits: FederationLimits
    timeout: float  # seconds to wait for the replies on one model
    config: ConfigRecord  # sent with every model

    def __call__(self, models: Sequence[Update]) -> list[ModelScore]:
        """Return the mean loss and accuracy of each model over the nodes that evaluated all; empty if none did."""
        downlinks = self.exchange.models
        before = downlinks.save()
        scores = []
        for model in models:
            downlinks.resume(before, self.number)
            downlinks.advance(cast(model, downlinks.layout), self.number)
            scores.append(self._scores_of(downlinks.model))
        downlinks.resume(before, self.number)
        common = [node for node in scores[0] if all(node in each for each in scores)]
        total = sum(scores[0][node][0] for node in common)
        return [_mean([each[node] for node in common], total) for each in scores] if common else []

    def _scores_of(self, model: Update) -> dict[str, tuple[float, ModelScore]]:
        """Return by node its weight and its scores of the model that it is sent."""
        arrays = model_record(model)
        config = ConfigRecord({**self.config, "server-round": self.number})
        messages = [
            Message(
                RecordDict({"arrays": arrays, "config": config}),
                update.message.metadata.src_node_id,
                MessageType.EVALUATE,
            )
            for update in self.updates
        ]
        delivery = self.exchange.deliver(self.number, messages, self.timeout, lambda *_: parse(LOSSLESS))
        replies = [(reply.node, reply.message) for reply in delivery.replies]
        names = {message.metadata.src_node_id: node for node, message in replies}
        scores = {}
        for reply in valid_evaluations(self.number, self.strategy, replies, self.limits):
            node = names[reply.metadata.src_node_id]
            try:
                scores[node] = read_weight(reply, weighted_by(self.strategy)), _read_score(reply)
            except FrameError as error:
                log_refusal(self.number, node, error)
        return scores


def _mean(scores: Sequence[tuple[float, ModelScore]], total: float) -> ModelScore:
    weights = [weight / total for weight, _ in scores]
    loss = sum(w * score.loss for w, (_, score) in zip(weights, scores, strict=True))
    return ModelScore(loss, sum(w * score.accuracy for w, (_, score) in zip(weights, scores, strict=True)))


def _read_score(reply: Message) -> ModelScore:
    """Return a node's scores of a model; raise FrameError if they are invalid."""
    (metrics,) = reply.content.metric_records.values()
    loss, accuracy = metrics.get("loss"), metrics.get("accuracy")
    if not isinstance(loss, int | float) or not 0 <= loss < math.inf:
        raise FrameError(f"an evaluation's loss must be a finite number of at least 0, got {loss!r}")
    if not isinstance(accuracy, int | float) or not 0 <= accuracy <= 1:
        raise FrameError(f"an evaluation's accuracy must be in [0, 1], got {accuracy!r}")
    return ModelScore(float(loss), float(accuracy))
