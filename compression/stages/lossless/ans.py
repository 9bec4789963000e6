"""Entropy coding with asymmetric numeral systems, Duda 2013, https://arxiv.org/abs/1311.2540."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedpress.common.errors import FrameError
from fedpress.compression.codec import Stage, Streams
from fedpress.compression.entropy import integer_coder, side_information
from fedpress.compression.entropy.context_classes import Shape
from fedpress.compression.kernels import factor_pairs
from fedpress.compression.layout import Layout
from fedpress.compression.streams import SIDE, gaps, positions, take


@dataclass(frozen=True)
class Ans(Stage):
    """Entropy-code streams of integers, with contexts for those of the layout's matrices: `ans`.

    Positions of kept values are sent as a mask if that is shorter than their gaps. Floats stay unchanged.
    """

    lossless: ClassVar[bool] = True
    takes_side: ClassVar[bool] = True

    def encode(self, streams: Streams, layout: Layout, rng: np.random.Generator) -> Streams:
        start = _start(streams, layout)
        coded = {name: array for name, array in streams.items() if array.dtype.kind not in "iu" and name != SIDE}
        for name, array in streams.items():
            if name not in coded and name != SIDE:
                shapes, rows = _shapes(name, array.size, streams, layout)
                data = integer_coder.encode(array, shapes, by_row=rows, start=start if rows else None)
                coded[name] = np.frombuffer(data, np.uint8)
        if _FACTORS in coded and integer_coder.uses_side(coded[_FACTORS].tobytes()):
            coded[SIDE_NAME] = _name_of(streams[SIDE])
        if "gap" in streams:
            mask = np.zeros(layout.size, np.uint8)
            for at in positions(streams, layout):
                mask[at] = 1
            data = integer_coder.encode(mask, layout.matrices)
            if len(data) < coded["gap"].size:
                del coded["gap"]
                coded[_MASK] = np.frombuffer(data, np.uint8)
        return coded

    def decode(self, streams: Streams, layout: Layout) -> Streams:
        max_nbytes, back = (
            layout.max_nbytes,
            {name: array for name, array in streams.items() if name not in (SIDE, SIDE_NAME)},
        )
        side = streams.get(SIDE)
        if SIDE_NAME in streams:
            wanted = take(streams, SIDE_NAME, np.uint8, 8)
            if side is None or not np.array_equal(_name_of(side), wanted):
                raise FrameError(f"the frame needs the update {wanted.tobytes().hex()}, which must be given")
        # The shapes of factors follow from the ranks, which are decoded first.
        for name in sorted(back, key=lambda name: name == _FACTORS):
            if streams[name].dtype.kind in "iu":
                data = take(streams, name, np.uint8).tobytes()
                shapes, rows = _shapes(name, layout.size, back, layout)
                start = _start({**back, SIDE: side}, layout) if rows and side is not None else None
                back[name] = integer_coder.decode(data, max_nbytes, shapes, start)
                max_nbytes -= back[name].nbytes
        if _MASK in back:
            if "gap" in back:
                raise FrameError("positions must be a mask or gaps, not both")
            back["gap"] = _gap(back.pop(_MASK), layout)
        return back


_FACTORS = "factors"
_MASK = "mask"


def _shapes(name: str, size: int, streams: Streams, layout: Layout) -> tuple[Sequence[Shape], bool]:
    """Return the shapes of the matrices whose cells the stream holds, and whether they have few rows."""
    if name == _FACTORS:
        return factor_pairs.shapes(take(streams, "rank", np.uint16, len(layout.matrices)), layout), True
    return (layout.matrices if size == layout.size else ()), False


def _start(streams: Streams, layout: Layout) -> list[NDArray[np.int64]] | None:
    """Return the initial sums of the columns of each matrix of factors, by the update that both ends have."""
    if SIDE not in streams or "rank" not in streams:
        return None
    known = side_information.activities(streams[SIDE], layout.matrices)
    return [
        part
        for r, activity in zip(take(streams, "rank", np.uint16, len(known)).tolist(), known, strict=True)
        if r
        for part in activity
    ]


SIDE_NAME = "side.name"  # hash of the side values that a frame was coded with


def _name_of(side: NDArray[np.float32]) -> NDArray[np.uint8]:
    digest = hashlib.blake2b(side.astype("<f4", copy=False).tobytes(), digest_size=8).digest()
    return np.frombuffer(digest, np.uint8)


def _gap(mask: NDArray[np.integer], layout: Layout) -> NDArray[np.uint32]:
    if mask.dtype != np.uint8 or mask.size != layout.size:
        raise FrameError(f"a mask must have {layout.size} bytes, got {mask.size} of {mask.dtype.name}")
    return gaps(mask != 0)
