"""After the last round each node makes the model its own, and says what it was worth there before and after.

Yu et al. 2020, https://arxiv.org/abs/2002.04758: what a node gains by that says whether taking part was worth it.
"""

import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from flwr.app import ConfigRecord, Message, MessageType, MetricRecord, RecordDict

from fedpress.common.logs import LOGGER
from fedpress.common.rng import derive
from fedpress.compression import FrameError, parse
from fedpress.protocol.messages import LOSSLESS
from fedpress.server.aggregation.aggregate import model_record
from fedpress.server.aggregation.client_update import refuse
from fedpress.server.messaging.exchange import Exchange
from fedpress.server.personal.settings import Personalising

_log = logging.getLogger(LOGGER)


@dataclass(frozen=True)
class Tuned:
    """What the model is worth on a node's own held-out examples, before its fine-tuning and after."""

    node: str
    examples: int  # held out
    before: float  # accuracy
    before_loss: float
    after: float  # accuracy
    after_loss: float


@dataclass(frozen=True)
class FineTuning:
    """Lets nodes fine-tune. What they learn goes nowhere, nor do they keep it: nothing but these numbers comes back."""

    settings: Personalising
    seed: int
    done: Callable[[list[Tuned]], None]  # called with what nodes said, in the order of their names

    def __call__(self, last: int, exchange: Exchange, timeout: float) -> None:
        """Do it, `last` being the number of the last round."""
        number = last + 1
        arrays = model_record(exchange.models.model)
        config = ConfigRecord(
            {
                "server-round": number,
                "finetune-epochs": self.settings.finetune_epochs,
                "finetune-lr": self.settings.finetune_lr,
            }
        )
        messages = [
            Message(RecordDict({"arrays": arrays, "config": config}), node, MessageType.EVALUATE)
            for node in self._chosen(list(exchange.grid.get_node_ids()))
        ]
        delivery = exchange.deliver(number, messages, timeout, lambda *_: parse(LOSSLESS))
        tuned = []
        for reply in delivery.replies:
            try:
                tuned.append(_read(reply.node, reply.message.content.metric_records.values()))
            except FrameError as error:
                refuse(number, reply.node, error)
        _log.info("%d of %d nodes fine-tuned the model", len(tuned), len(messages))
        self.done(tuned)

    def _chosen(self, nodes: list[int]) -> list[int]:
        count = max(1, round(self.settings.finetune_share * len(nodes)))
        picked = derive(self.seed, "finetune").permutation(len(nodes))[:count]
        return [nodes[at] for at in sorted(picked)]


def _read(node: str, records: Iterable[MetricRecord]) -> Tuned:
    metrics = {name: value for record in records for name, value in record.items()}
    names = ("num-examples", "before-accuracy", "before-loss", "accuracy", "loss")
    found = [metrics.get(name) for name in names]
    numbers = [float(value) for value in found if isinstance(value, int | float) and math.isfinite(value)]
    if len(numbers) < len(names):
        raise FrameError(f"it says {', '.join(names)}, got {found}")
    return Tuned(node, int(numbers[0]), numbers[1], numbers[2], numbers[3], numbers[4])
