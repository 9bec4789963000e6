"""Class counts that nodes share, where teachers are weighed by them: a list among a reply's metrics."""

import torch
from flwr.app import Message
from torch import Tensor

from fedpress.protocol.messages import CLASSES

_MOST = 1 << 53  # examples: no count beyond it is exact


def read_counts(reply: Message, classes: int) -> Tensor | None:
    """Return how many examples of each class a node has, (classes,), None if it says nothing that can be."""
    for metrics in reply.content.metric_records.values():
        said = metrics.get(CLASSES)
        if isinstance(said, list) and len(said) == classes and min(said) >= 0 and 0 < sum(said) < _MOST:
            return torch.tensor([float(count) for count in said])
    return None
