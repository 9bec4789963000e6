"""What happened in a round, for whoever keeps the record."""

from dataclasses import dataclass, field

from flwr.app import MetricRecord

from fedpress.compression import Update
from fedpress.server.aggregation.client_update import Work
from fedpress.server.messaging.node_evaluation import Facts


@dataclass(frozen=True)
class Counted:
    """A node's reply that counted."""

    codec: str  # spec
    weight: float  # by which it was averaged, its examples as a rule
    work: Work


@dataclass(frozen=True)
class Round:
    """What happened in a round, for whoever keeps the record."""

    number: int  # 0 is the model before the first round
    model: Update  # v, as nodes can reconstruct it
    evaluation: MetricRecord | None  # what `evaluate_fn` said of it
    evaluated: MetricRecord | None  # what nodes said of it, as the strategy sums it up
    failures: int  # replies that were refused, errors, or never came
    seconds: float
    counted: dict[str, Counted]  # by node
    distilled: bool  # whether `distil` gave another model than the strategy did
    judged: dict[str, MetricRecord]  # what each node that evaluated the model said of it
    groups: dict[str, Update] = field(default_factory=dict)  # v of each group, where nodes have different models
    distillation: Facts = field(default_factory=dict)  # what `distil` noted
