"""Fine-tuning after the last round: each node trains the model further and reports its accuracy before and after.

Yu et al. 2020, https://arxiv.org/abs/2002.04758: the gain shows whether a node benefits from the federation.
"""

import csv
import io
import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from flwr.app import Message, MessageType, MetricRecord, RecordDict

from fedpress.common.files import replace
from fedpress.common.logs import LOGGER
from fedpress.common.rng import derive
from fedpress.compression import FrameError, parse
from fedpress.extensions.personal_layers.settings import TABLE, PersonalLayersSettings
from fedpress.protocol.app_config import AppConfig
from fedpress.protocol.arrays import model_record
from fedpress.protocol.messages import LOSSLESS
from fedpress.server.aggregation.client_update import log_refusal
from fedpress.server.extension import FinalContext
from fedpress.server.run.accuracy_summary import spread

_log = logging.getLogger(LOGGER)


@dataclass(frozen=True)
class FineTuned:
    """Scores of the model on a node's own held-out examples, before its fine-tuning and after."""

    node: str
    examples: int  # held-out examples
    before: float  # accuracy
    before_loss: float
    after: float  # accuracy
    after_loss: float


def finetune(settings: PersonalLayersSettings, seed: int, context: FinalContext) -> list[FineTuned]:
    """Let nodes fine-tune the last model; return the scores that they report, in the order of their names.

    Nodes discard the fine-tuned weights and return only these scores.
    """
    number, exchange = context.number, context.exchange
    arrays = model_record(exchange.models.model)
    # The number of another round: nodes shuffle their examples by it.
    config = AppConfig(
        number + 1, finetune_epochs=settings.finetune_epochs, finetune_lr=settings.finetune_lr
    ).to_record()
    messages = [
        Message(RecordDict({"arrays": arrays, "config": config}), node, MessageType.EVALUATE)
        for node in _choose(list(exchange.grid.get_node_ids()), settings.finetune_share, seed)
    ]
    delivery = exchange.deliver(number, messages, context.timeout, lambda *_: parse(LOSSLESS))
    tuned = []
    for reply in delivery.replies:
        try:
            tuned.append(_read(reply.node, reply.message.content.metric_records.values()))
        except FrameError as error:
            log_refusal(number, reply.node, error)
    _log.info("%d of %d nodes fine-tuned the model", len(tuned), len(messages))
    return tuned


def write_table(folder: Path, nodes: Sequence[FineTuned]) -> None:
    """Write the scores of each node to `personal.csv` in `folder`."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [field.name for field in fields(FineTuned)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(node) for node in nodes)
    replace(folder / TABLE, text.getvalue().encode())


def scores_of(nodes: Sequence[FineTuned]) -> dict[str, Any]:
    """Return the spread of the nodes' accuracies before and after; JSON."""
    return {"before": spread([node.before for node in nodes]), "after": spread([node.after for node in nodes])}


def _choose(nodes: list[int], share: float, seed: int) -> list[int]:
    count = max(1, round(share * len(nodes)))
    chosen = derive(seed, "finetune").permutation(len(nodes))[:count]
    return [nodes[at] for at in sorted(chosen)]


def _read(node: str, records: Iterable[MetricRecord]) -> FineTuned:
    metrics = {name: value for record in records for name, value in record.items()}
    names = ("num-examples", "before-accuracy", "before-loss", "accuracy", "loss")
    found = [metrics.get(name) for name in names]
    numbers = [float(value) for value in found if isinstance(value, int | float) and math.isfinite(value)]
    if len(numbers) < len(names):
        raise FrameError(f"its fine-tuning must report {', '.join(names)}, got {found}")
    examples, before, before_loss, after, after_loss = numbers
    return FineTuned(node, int(examples), before, before_loss, after, after_loss)
