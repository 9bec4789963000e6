"""Reports on a frame: its head and streams, and, with its layout, its symbols and tensors."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpress.common.errors import FrameError
from fedpress.compression.codec import Codec
from fedpress.compression.frame import VERSION, read_frame
from fedpress.compression.layout import Layout
from fedpress.compression.spec import read_codec

_BARS = 15  # most symbols with a count in a histogram


@dataclass(frozen=True)
class StreamReport:
    """A stream as it is sent."""

    name: str
    dtype: str
    nbytes: int


@dataclass(frozen=True)
class SymbolReport:
    """A stream of integers as the lossless stages decode it."""

    name: str
    count: int
    zeros: float  # share
    distinct: int
    entropy: float  # of order zero, bits per symbol
    nbytes: int  # bytes of the stream as it is sent
    histogram: dict[str, int]  # count of each symbol, by its text; "other" for all that are not listed


@dataclass(frozen=True)
class TensorReport:
    """A tensor of the decoded update."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    zeros: float  # share
    largest: float  # magnitude


@dataclass(frozen=True)
class FrameReport:
    """A frame; `symbols`, `tensors`, `bits` and `ratio` need its layout."""

    version: int
    spec: str
    layout: str
    base: str  # empty for a frame that starts from no model
    nbytes: int
    head: int  # bytes before the streams
    streams: tuple[StreamReport, ...]
    symbols: tuple[SymbolReport, ...] = ()
    tensors: tuple[TensorReport, ...] = ()
    bits: float | None = None  # per parameter
    ratio: float | None = None  # bytes of the tensors in float32, over the frame's


def inspect(frame: bytes, layout: Layout | None = None) -> FrameReport:
    """Return the report on `frame`; raise FrameError if it is not a frame, or not of this layout."""
    read = read_frame(frame)
    streams = tuple(StreamReport(name, array.dtype.name, array.nbytes) for name, array in read.streams.items())
    head = len(frame) - sum(stream.nbytes for stream in streams)
    known: dict[str, Any] = {}
    if layout is not None:
        codec = read_codec(read.spec)
        update = codec.decode(frame, layout)
        known["tensors"] = tuple(
            TensorReport(name, array.shape, array.dtype.name, _zeros(array), float(np.abs(array).max(initial=0)))
            for name, array in update.items()
        )
        known["symbols"] = _symbols(codec, read.streams, layout)
        known["bits"] = 8 * len(frame) / max(1, layout.size)
        known["ratio"] = layout.nbytes / len(frame)
    return FrameReport(VERSION, read.spec, read.layout.hex(), read.base.hex(), len(frame), head, streams, **known)


def _symbols(codec: Codec, coded: dict[str, NDArray[Any]], layout: Layout) -> tuple[SymbolReport, ...]:
    return tuple(
        _report(name, array, coded[name].nbytes if name in coded else 0)
        for name, array in codec.uncoded(coded, layout).items()
        if array.dtype.kind in "iu" and name != "exact" and array.size
    )


def _report(name: str, array: NDArray[np.integer], nbytes: int) -> SymbolReport:
    kinds, counts = np.unique(array, return_counts=True)
    share = counts / array.size
    shown = np.sort(np.argsort(-counts, kind="stable")[:_BARS])
    histogram = {str(kinds[i]): int(counts[i]) for i in shown}
    if kinds.size > shown.size:
        histogram["other"] = int(counts.sum() - counts[shown].sum())
    entropy = float(-(share * np.log2(share)).sum())
    return SymbolReport(name, array.size, _zeros(array), kinds.size, max(0.0, entropy), nbytes, histogram)


def _zeros(array: NDArray[Any]) -> float:
    return float((array == 0).mean()) if array.size else 0.0


def layout_of(text: str) -> Layout:
    """Return the layout with this text; raise FrameError, in one line, if it is not a layout."""
    if not text.lstrip().startswith("["):
        raise FrameError('a layout must be a list of [name, shape, dtype], such as [["w",[2,3],"float32"]]')
    return Layout.read(text.strip())
