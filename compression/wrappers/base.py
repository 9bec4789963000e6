"""The base class of codecs around a pipeline."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fedpress.common.errors import UpdateError
from fedpress.compression.codec import Codec, State, Streams
from fedpress.compression.layout import Layout, Update
from fedpress.compression.pipeline import Pipeline


@dataclass(frozen=True)
class Wrapper(Codec):
    """A codec that changes updates, most by values of its state, float32 (n,); `inner` makes the frames."""

    inner: Pipeline

    def __str__(self) -> str:
        return str(self.inner)

    @property
    def stateful(self) -> bool:
        return True

    def aimed(self, **target: float | int) -> Codec:
        return replace(self, inner=self.inner.aimed(**target))

    def uncoded(self, streams: Streams, layout: Layout) -> Streams:
        return self.inner.uncoded(streams, layout)

    def decode(self, frame: bytes, layout: Layout, *, side: Update | None = None, base: bytes | None = None) -> Update:
        return self.inner.decode(frame, layout, side=side, base=base)


def state_array(state: State, key: str, layout: Layout) -> NDArray[np.float32]:
    """Return an array of the state, float32 (n,); raise UpdateError if it is not of this layout."""
    array = state.get(key)
    if array is None or array.shape != (layout.size,):
        raise UpdateError(f"the state must be of this layout, with a {key} of {layout.size} values")
    return array


def add(update: NDArray[np.float32], residual: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the sum, float32 (n,); raise UpdateError if it is beyond float32."""
    with np.errstate(over="ignore"):
        return _finite(update + residual, "sum of the update and the residual")


def subtract(total: NDArray[np.float32], sent: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the residual, float32 (n,); raise UpdateError if it is beyond float32."""
    with np.errstate(over="ignore"):
        return _finite(total - sent, "residual")


def _finite(values: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    if not np.isfinite(values).all():
        raise UpdateError(f"the {name} must be finite in float32")
    return values
