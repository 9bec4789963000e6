"""Sparsification by an absolute threshold, Strom 2015, https://doi.org/10.21437/Interspeech.2015-354."""

from dataclasses import dataclass

import numpy as np

from fedpress.common.errors import SpecError
from fedpress.compression.codec import Stage, Streams
from fedpress.compression.layout import Layout
from fedpress.compression.streams import POSITION_STREAMS, gaps, scatter, whole_update, without


@dataclass(frozen=True)
class Threshold(Stage):
    """`threshold(t)`: values of magnitude above `t`, in the update's own units, as they are; maybe none.

    Strom sends plus or minus t for each and feeds the rest back: that is `ef | threshold(t) | sign | ans`, but for the
    scale, which is fitted here.
    """

    t: float

    def __post_init__(self) -> None:
        if not 0 <= self.t < np.inf:
            raise SpecError(f"threshold is a magnitude of 0 or more, got {self.t}")

    def encode(self, streams: Streams, layout: Layout, rng: np.random.Generator) -> Streams:
        values = whole_update(streams, "threshold")
        keep = np.abs(values) > self.t
        return {**streams, "values": values[keep], "gap": gaps(keep)}

    def decode(self, streams: Streams, layout: Layout) -> Streams:
        return {**without(streams, *POSITION_STREAMS), "values": scatter(streams, layout)}
