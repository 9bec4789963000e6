"""Class counts that nodes share, where teachers are weighed by them: a list among a reply's metrics."""

import math

import torch
from flwr.app import Message
from torch import Tensor

from fedpress.compression.message import CLASSES


def read_counts(reply: Message) -> Tensor | None:
    """Return how many examples of each class a node has, (classes,), None if it says nothing that can be."""
    for metrics in reply.content.metric_records.values():
        said = metrics.get(CLASSES)
        if isinstance(said, list) and said and all(0 <= count < math.inf for count in said) and sum(said) > 0:
            return torch.tensor([float(count) for count in said])
    return None
