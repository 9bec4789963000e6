"""Bit packing at a fixed width, Lemire and Boytsov 2015, https://arxiv.org/abs/1209.2137."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedpress.common.errors import FrameError
from fedpress.compression.codec import Stage, Streams
from fedpress.compression.entropy import bit_io
from fedpress.compression.entropy.tokens import fold, unfold
from fedpress.compression.frame import ByteReader, put_head
from fedpress.compression.layout import Layout
from fedpress.compression.streams import take


@dataclass(frozen=True)
class Pack(Stage):
    """Pack each stream of integers at the width of its largest magnitude, the fastest lossless stage: `pack`."""

    lossless: ClassVar[bool] = True

    def encode(self, streams: Streams, layout: Layout, rng: np.random.Generator) -> Streams:
        return {name: _pack(array) if array.dtype.kind in "iu" else array for name, array in streams.items()}

    def decode(self, streams: Streams, layout: Layout) -> Streams:
        max_nbytes, back = layout.max_nbytes, dict(streams)
        for name, array in streams.items():
            if array.dtype.kind in "iu":
                back[name] = _unpack(take(streams, name, np.uint8).tobytes(), max_nbytes)
                max_nbytes -= back[name].nbytes
        return back


def _pack(array: NDArray[np.integer]) -> NDArray[np.uint8]:
    numbers = fold(array) if array.dtype.kind == "i" else array.view(f"u{array.dtype.itemsize}")
    width = int(numbers.max(initial=0)).bit_length()
    head = bytearray()
    put_head(head, array)
    head.append(width)
    return np.frombuffer(bytes(head) + bit_io.pack(numbers, width), np.uint8)


def _unpack(data: bytes, max_nbytes: int) -> NDArray[np.integer]:
    reader = ByteReader(data)
    dtype, count = reader.head(max_nbytes, "iu")
    if count * dtype.itemsize > max_nbytes:
        raise FrameError(f"a stream must decode to at most {max_nbytes} bytes, got {count} of {dtype.name}")
    width = reader.byte()
    if width > 8 * dtype.itemsize:
        raise FrameError(f"the width of {dtype.name} must be at most {8 * dtype.itemsize} bits, got {width}")
    numbers = np.zeros(count, f"u{dtype.itemsize}")
    packed = bit_io.BitReader(bytes(reader.rest()))
    packed.fixed(numbers, width)
    packed.end()
    return unfold(numbers) if dtype.kind == "i" else numbers
