"""The record of a round, for `Compressed.observe`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flwr.app import MetricRecord

from fedpress.compression import Update
from fedpress.server.aggregation.client_update import WorkTime


@dataclass(frozen=True)
class CountedReply:
    """A node's reply that counted."""

    codec: str  # spec
    claim: float  # the weight that it claims, usually its number of examples
    weight: float  # by which it was averaged
    norm: float  # L2 norm of its update, as it was sent
    time: WorkTime
    train_loss: float | None = None  # mean loss of the node's training; None if it does not report one


@dataclass(frozen=True)
class Round:
    """The result of a round."""

    number: int  # 0 is the initial model, before the first round
    model: Update  # v, the whole model as nodes can reconstruct it
    evaluation: MetricRecord | None  # the server's evaluation of it, by `evaluate_fn`
    evaluated: MetricRecord | None  # the nodes' evaluation of it, as the strategy aggregates it
    node_evaluations: Mapping[str, MetricRecord]  # the evaluation of each node, by the node's name
    groups: Mapping[str, Update]  # v of each group of nodes; empty if all have the same model
    counted: Mapping[str, CountedReply]  # the replies that counted, by the node's name
    failures: int  # replies that were refused, were errors, or never came
    seconds: float  # that the round took
    facts: Mapping[str, Any] = field(default_factory=dict)  # added to its row in result.json
    scores: Mapping[str, Any] = field(default_factory=dict)  # added to its row and to the final scores
