"""Entropy coding with asymmetric numeral systems, Duda 2013, https://arxiv.org/abs/1311.2540."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedpress.compression import lowrank
from fedpress.compression.codec import Stage, Streams
from fedpress.compression.entropy import integers
from fedpress.compression.entropy.classes import Shape
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
        coded = {name: array for name, array in streams.items() if array.dtype.kind not in "iu"}
        for name, array in streams.items():
            if name not in coded:
                shapes, rows = _shapes(name, array.size, streams, layout)
                coded[name] = np.frombuffer(integers.encode(array, shapes, by_row=rows), np.uint8)
        if "gap" in streams:
            mask = np.zeros(layout.size, np.uint8)
            mask[positions(streams["gap"], layout.size)] = 1
            data = integers.encode(mask, layout.matrices)
            if len(data) < coded["gap"].size:
                del coded["gap"]
                coded[_MASK] = np.frombuffer(data, np.uint8)
        return coded

    def decode(self, streams: Streams, layout: Layout) -> Streams:
        room, back = layout.room, dict(streams)
        # The factors' shapes are known once their ranks are.
        for name in sorted(streams, key=lambda name: name == _FACTORS):
            if streams[name].dtype.kind in "iu":
                data = take(streams, name, np.uint8).tobytes()
                shapes, _ = _shapes(name, layout.size, back, layout)
                back[name] = integers.decode(data, room, shapes)
                room -= back[name].nbytes
        if _MASK in back:
            if "gap" in back:
                raise FrameError("positions come as a mask or as gaps, not as both")
            back["gap"] = _gap(back.pop(_MASK), layout)
        return back


_FACTORS = "factors"
_MASK = "mask"


def _shapes(name: str, size: int, streams: Streams, layout: Layout) -> tuple[Sequence[Shape], bool]:
    """Return the matrices that a stream of this size is the cells of, and whether they are few rows of vectors."""
    if name == _FACTORS:
        return lowrank.shapes(take(streams, "rank", np.uint16, len(layout.matrices)), layout), True
    return (layout.matrices if size == layout.size else ()), False


def _gap(mask: NDArray[np.integer], layout: Layout) -> NDArray[np.uint32]:
    if mask.dtype != np.uint8 or mask.size != layout.size:
        raise FrameError(f"a mask has {layout.size} bytes, got {mask.size} of {mask.dtype.name}")
    return (np.diff(np.flatnonzero(mask), prepend=-1) - 1).astype(np.uint32)
