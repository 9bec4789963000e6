"""A stage and a preset."""

from dataclasses import dataclass

import numpy as np

from fedpress.compression import Layout, SpecError, Stage, Streams
from fedpress.compression.streams import take, values_of, without

_MOST = 2**31 - 1


@dataclass(frozen=True)
class Grid(Stage):
    """Round to the nearest multiple of `step`: `grid(step)`."""

    step: float

    def __post_init__(self) -> None:
        if not 0 < self.step < 1:
            raise SpecError(f"grid's step must be in (0, 1), got {self.step}")

    def encode(self, streams: Streams, layout: Layout, rng: np.random.Generator) -> Streams:
        multiples = np.rint(values_of(streams, "grid") / np.float64(self.step))
        symbols = multiples.clip(-_MOST, _MOST).astype(np.int32)
        return {**without(streams, "values"), "symbols": symbols}

    def decode(self, streams: Streams, layout: Layout) -> Streams:
        values = take(streams, "symbols", np.int32) * self.step
        return {**without(streams, "symbols"), "values": values.astype(np.float32)}


def sparse_grid(share: float, step: float = 0.001) -> str:
    """Return the codec that keeps the largest `share` of the values, rounded to multiples of `step`."""
    return f"ef | topk({share!r}) | grid({step!r}) | ans"
