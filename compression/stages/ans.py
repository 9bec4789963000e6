"""Entropy coding with asymmetric numeral systems, Duda 2013, https://arxiv.org/abs/1311.2540."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedpress.compression.codec import Stage, Streams
from fedpress.compression.entropy import integers
from fedpress.compression.errors import FrameError
from fedpress.compression.layout import Layout
from fedpress.compression.streams import positions, take


@dataclass(frozen=True)
class Ans(Stage):
    """`ans`: every stream of integers, by context where they belong to the layout's matrices; floats stay as they are.

    Positions of kept values go as a mask where that is shorter than their gaps.
    """

    lossless: ClassVar[bool] = True

    def encode(self, streams: Streams, layout: Layout, rng: np.random.Generator) -> Streams:
        return dict(
            _press(name, array, layout) if array.dtype.kind in "iu" else (name, array)
            for name, array in streams.items()
        )

    def decode(self, streams: Streams, layout: Layout) -> Streams:
        room, back = layout.room, dict(streams)
        for name, array in streams.items():
            if array.dtype.kind in "iu":
                data = take(streams, name, np.uint8).tobytes()
                back[name] = integers.decode(data, room, layout.matrices)
                room -= back[name].nbytes
        if _MASK in back:
            if "gap" in back:
                raise FrameError("positions come as a mask or as gaps, not as both")
            back["gap"] = _gap(back.pop(_MASK), layout)
        return back


_MASK = "mask"


def _press(name: str, array: NDArray[np.integer], layout: Layout) -> tuple[str, NDArray[np.uint8]]:
    data = integers.encode(array, layout.matrices if array.size == layout.size else ())
    if name == "gap" and array.dtype == np.uint32:
        mask = np.zeros(layout.size, np.uint8)
        mask[positions(array, layout.size)] = 1
        name, data = min((name, data), (_MASK, integers.encode(mask, layout.matrices)), key=lambda way: len(way[1]))
    return name, np.frombuffer(data, np.uint8)


def _gap(mask: NDArray[np.integer], layout: Layout) -> NDArray[np.uint32]:
    if mask.dtype != np.uint8 or mask.size != layout.size:
        raise FrameError(f"a mask has {layout.size} bytes, got {mask.size} of {mask.dtype.name}")
    return (np.diff(np.flatnonzero(mask), prepend=-1) - 1).astype(np.uint32)
