"""Sparsification by an absolute threshold, Strom 2015, https://doi.org/10.21437/Interspeech.2015-354."""

from dataclasses import dataclass

import numpy as np

from fedpress.common.errors import SpecError
from fedpress.compression.codec import Stage, Streams
from fedpress.compression.layout import Layout
from fedpress.compression.streams import POSITION_STREAMS, gaps, scatter, whole_update, without


@dataclass(frozen=True)
class Threshold(Stage):
    """Keep the values of a magnitude above `t`, in the update's units: `threshold(t)`.

    Strom sends plus or minus t for each, with error feedback: `ef | threshold(t) | sign | ans` does so with a fitted
    scale.
    """

    t: float

    def __post_init__(self) -> None:
        if not 0 <= self.t < np.inf:
            raise SpecError(f"threshold's t must be at least 0, got {self.t}")

    def encode(self, streams: Streams, layout: Layout, rng: np.random.Generator) -> Streams:
        values = whole_update(streams, "threshold")
        keep = np.abs(values) > self.t
        return {**streams, "values": values[keep], "gap": gaps(keep)}

    def decode(self, streams: Streams, layout: Layout) -> Streams:
        return {**without(streams, *POSITION_STREAMS), "values": scatter(streams, layout)}
