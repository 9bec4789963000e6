"""What codecs with memory around a pipeline have in common."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fedpress.common.errors import UpdateError
from fedpress.compression.codec import Codec, State, Streams
from fedpress.compression.layout import Layout, Update
from fedpress.compression.pipeline import Pipeline


@dataclass(frozen=True)
class Wrapper(Codec):
    """A codec that remembers values, float32 (n,), and sends others than it is given; its frames are `inner`'s."""

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


def remembered(state: State, key: str, layout: Layout) -> NDArray[np.float32]:
    """Return a memory of one float32 for each value, (n,); raise UpdateError if it is not of this layout."""
    array = state.get(key)
    if array is None or array.shape != (layout.size,):
        raise UpdateError(f"the state is not of this layout: a {key} of {layout.size} values is due")
    return array


def add(update: NDArray[np.float32], memory: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the sum, float32 (n,); raise UpdateError if it is beyond float32."""
    with np.errstate(over="ignore"):
        wanted = update + memory
    if not np.isfinite(wanted).all():
        raise UpdateError("the update and what earlier ones left out are together beyond float32")
    return wanted
