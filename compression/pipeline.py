"""A chain of stages as a codec."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedpress.compression.codec import Codec, Stage, State, Streams
from fedpress.compression.errors import FrameError
from fedpress.compression.frame import read_frame, write_frame
from fedpress.compression.layout import Layout, Update
from fedpress.compression.streams import take


@dataclass(frozen=True)
class Pipeline(Codec):
    """Stages one after another; without memory.

    `text` is the spec that names the whole codec, wrappers included: the frame carries it, and a frame that carries
    another is refused.
    """

    stages: tuple[Stage, ...]
    text: str = field(kw_only=True)

    def __str__(self) -> str:
        return self.text

    @property
    def stateful(self) -> bool:
        return False

    def init(self, layout: Layout) -> State:
        return {}

    def encode(
        self,
        update: Update,
        state: State,
        rng: np.random.Generator,
        *,
        side: Update | None = None,
        base: bytes = b"",
    ) -> tuple[bytes, State]:
        layout = Layout.of(update)
        values, exact = layout.flatten(update)
        frame, _ = self.press(values, exact, layout, rng, base=base)
        return frame, {}

    def press(
        self,
        values: NDArray[np.float32],
        exact: NDArray[np.uint8],
        layout: Layout,
        rng: np.random.Generator,
        *,
        base: bytes,
    ) -> tuple[bytes, NDArray[np.float32]]:
        """Return the frame of a flattened update, and the values, float32 (n,), that it decodes to."""
        streams: Streams = {"values": values}
        if layout.exact_nbytes:
            streams["exact"] = exact
        lossy = [stage for stage in self.stages if not stage.lossless]
        for stage in lossy:
            streams = stage.encode(streams, layout, rng)
        back = streams
        for stage in reversed(lossy):
            back = stage.decode(back, layout)
        for stage in self.stages[len(lossy) :]:
            streams = stage.encode(streams, layout, rng)
        return write_frame(self.text, layout.digest, base, streams), back["values"]

    def decode(self, frame: bytes, layout: Layout, *, side: Update | None = None, base: bytes | None = None) -> Update:
        read = read_frame(frame)
        if read.spec != self.text:
            raise FrameError(f"a frame of the codec {read.spec!r}, {self.text!r} was asked for")
        if read.layout != layout.digest:
            raise FrameError("a frame of another layout")
        if base is not None and read.base != base:
            raise FrameError(f"a frame that starts from the model {read.base.hex()}, not from {base.hex()}")
        streams = read.streams
        for stage in reversed(self.stages):
            streams = stage.decode(streams, layout)
        values = take(streams, "values", np.float32, layout.size)
        exact = take(streams, "exact", np.uint8, layout.exact_nbytes) if layout.exact_nbytes else np.zeros(0, np.uint8)
        if len(streams) > (2 if layout.exact_nbytes else 1):
            raise FrameError(f"streams that belong to nothing: {', '.join(streams)}")
        if not np.isfinite(values).all():
            raise FrameError("a value is not finite")
        return layout.unflatten(values, exact)

    def lost(self, before: State, update: Update) -> State:
        return {}
