"""Top-k sparsification, Aji and Heafield 2017, https://arxiv.org/abs/1704.05021."""

from dataclasses import dataclass

import numpy as np

from fedpress.common.errors import SpecError
from fedpress.compression.codec import Stage, Streams
from fedpress.compression.layout import Layout
from fedpress.compression.streams import POSITION_STREAMS, gaps, scatter, whole_update, without


@dataclass(frozen=True)
class TopK(Stage):
    """Keep the `fraction` of all values that are largest in magnitude, at least one: `topk(fraction)`."""

    fraction: float

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise SpecError(f"topk's fraction must be in (0, 1], got {self.fraction}")

    def encode(self, streams: Streams, layout: Layout, rng: np.random.Generator) -> Streams:
        values = whole_update(streams, "topk")
        if values.size == 0:
            return {**streams, "gap": np.zeros(0, np.uint32)}
        k = max(1, round(self.fraction * values.size))
        size = np.abs(values)
        least = np.partition(size, values.size - k)[values.size - k]
        keep = size > least
        ties = np.flatnonzero(size == least)[: k - int(keep.sum())]
        keep[ties] = True
        return {**streams, "values": values[keep], "gap": gaps(keep)}

    def decode(self, streams: Streams, layout: Layout) -> Streams:
        return {**without(streams, *POSITION_STREAMS), "values": scatter(streams, layout)}
