"""Sparsification of whole tensors by the norm of their change, Wang et al. 2024, https://arxiv.org/abs/2404.08324."""

from dataclasses import dataclass

import numpy as np

from fedpress.common.errors import SpecError
from fedpress.compression.codec import Stage, Streams
from fedpress.compression.layout import Layout
from fedpress.compression.streams import POSITION_STREAMS, kept_values, scatter, tensor_parts, whole_update, without


@dataclass(frozen=True)
class TensorGate(Stage):
    """Keep the `fraction` of the float tensors with the largest norm, at least one: `gate(fraction)`."""

    fraction: float

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise SpecError(f"gate's fraction must be in (0, 1], got {self.fraction}")

    def encode(self, streams: Streams, layout: Layout, rng: np.random.Generator) -> Streams:
        values = whole_update(streams, "gate")
        edges = np.cumsum([0, *(tensor.size for tensor in layout.lossy)])
        norm = np.array([float(np.linalg.norm(part)) for part in tensor_parts(values, edges)])
        keep = np.zeros(norm.size, np.uint8)
        keep[np.argsort(-norm, kind="stable")[: max(1, round(self.fraction * norm.size))]] = 1
        return {**streams, "gate": keep, "values": kept_values(values, {"gate": keep}, layout)}

    def decode(self, streams: Streams, layout: Layout) -> Streams:
        return {**without(streams, *POSITION_STREAMS), "values": scatter(streams, layout)}
