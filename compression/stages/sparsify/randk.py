"""Random sparsification from a shared seed, Konecny et al. 2016, https://arxiv.org/abs/1610.05492."""

from dataclasses import dataclass

import numpy as np

from fedpress.common.errors import SpecError
from fedpress.compression.codec import Stage, Streams
from fedpress.compression.layout import Layout
from fedpress.compression.streams import FLOAT32_MAX, POSITION_STREAMS, kept_values, scatter, whole_update, without


@dataclass(frozen=True)
class RandK(Stage):
    """Keep each value with probability `fraction`, divided by it: `randk(fraction)`. Unbiased; positions are a seed.

    The expected squared error is (1 / fraction - 1) times the update's squared norm, as with exactly k of n values
    (Stich et al. 2018, https://arxiv.org/abs/1809.07599); independent draws need no memory of the update's size.
    """

    fraction: float

    def __post_init__(self) -> None:
        if not 2**-32 <= self.fraction <= 1:
            raise SpecError(f"randk's fraction must be in [2**-32, 1], got {self.fraction}")

    def encode(self, streams: Streams, layout: Layout, rng: np.random.Generator) -> Streams:
        values = whole_update(streams, "randk")
        seed = int(rng.integers(2**63))
        limit = min(int(self.fraction * 2**64), 2**64 - 1)
        coin = {"coin": np.array([seed, limit], np.uint64)}
        with np.errstate(over="ignore"):
            scaled = kept_values(values, coin, layout) / np.float32(self.fraction)
        return {**streams, **coin, "values": np.clip(scaled, -FLOAT32_MAX, FLOAT32_MAX, out=scaled)}

    def decode(self, streams: Streams, layout: Layout) -> Streams:
        return {**without(streams, *POSITION_STREAMS), "values": scatter(streams, layout)}
