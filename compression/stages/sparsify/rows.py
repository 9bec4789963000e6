"""Whole rows or filters by L1 norm, Li et al. 2017, https://arxiv.org/abs/1608.08710."""

from dataclasses import dataclass

import numpy as np

from fedpress.common.errors import SpecError
from fedpress.compression.codec import Stage, Streams
from fedpress.compression.layout import Layout
from fedpress.compression.streams import POSITION_STREAMS, kept_values, scatter, whole_update, without


@dataclass(frozen=True)
class Rows(Stage):
    """Keep the `fraction` of all rows with the largest mean magnitude, at least one: `rows(fraction)`.

    A row is the part of a tensor at one index of its first axis, such as a neuron's weights or a filter; a tensor of
    one axis is one row. Of equal means the first is kept.
    """

    fraction: float

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise SpecError(f"rows's fraction must be in (0, 1], got {self.fraction}")

    def encode(self, streams: Streams, layout: Layout, rng: np.random.Generator) -> Streams:
        values = whole_update(streams, "rows")
        means = [np.zeros(0)]
        begin = 0
        for m, n in layout.matrices:
            part = np.abs(values[begin : begin + m * n].reshape(m, n))
            means.append(part.mean(axis=1, dtype=np.float64) if n else np.zeros(m))
            begin += m * n
        mean = np.concatenate(means)
        keep = np.zeros(mean.size, np.uint8)
        keep[np.argsort(-mean, kind="stable")[: max(1, round(self.fraction * mean.size))]] = 1
        return {**streams, "rows": keep, "values": kept_values(values, {"rows": keep}, layout)}

    def decode(self, streams: Streams, layout: Layout) -> Streams:
        return {**without(streams, *POSITION_STREAMS), "values": scatter(streams, layout)}
