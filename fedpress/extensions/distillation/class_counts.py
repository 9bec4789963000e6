"""Class counts that nodes report for weighting teachers by them: a list among a reply's metrics."""

import torch
from flwr.app import Message
from torch import Tensor

from fedpress.protocol.app_config import CLASS_COUNTS

_LIMIT = 1 << 53  # examples: float64 holds counts up to this exactly


def read_counts(reply: Message, classes: int) -> Tensor | None:
    """Return a node's number of examples of each class, (classes,); None if it reports no valid counts."""
    for metrics in reply.content.metric_records.values():
        counts = metrics.get(CLASS_COUNTS)
        if isinstance(counts, list) and len(counts) == classes and min(counts) >= 0 and 0 < sum(counts) < _LIMIT:
            return torch.tensor([float(count) for count in counts])
    return None
