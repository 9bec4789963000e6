"""Bit packing at a fixed width, Lemire and Boytsov 2015, https://arxiv.org/abs/1209.2137."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedpress.compression.codec import Stage, Streams
from fedpress.compression.entropy import bits, tokens
from fedpress.compression.errors import FrameError
from fedpress.compression.frame import Reader, put_head
from fedpress.compression.layout import Layout
from fedpress.compression.streams import take


@dataclass(frozen=True)
class Pack(Stage):
    """`pack`: every stream of integers in as many bits a number as its largest magnitude needs; the fastest."""

    lossless: ClassVar[bool] = True

    def encode(self, streams: Streams, layout: Layout, rng: np.random.Generator) -> Streams:
        return {name: _pack(array) if array.dtype.kind in "iu" else array for name, array in streams.items()}

    def decode(self, streams: Streams, layout: Layout) -> Streams:
        return {
            name: _unpack(take(streams, name, np.uint8).tobytes(), layout.longest)
            if array.dtype.kind in "iu"
            else array
            for name, array in streams.items()
        }


def _pack(array: NDArray[np.integer]) -> NDArray[np.uint8]:
    numbers = tokens.fold(array) if array.dtype.kind == "i" else array.astype(np.uint64)
    width = int(numbers.max(initial=0)).bit_length()
    head = bytearray()
    put_head(head, array)
    head.append(width)
    data = bits.pack(numbers, np.full(numbers.size, width, np.int64))
    return np.frombuffer(bytes(head) + data, np.uint8)


def _unpack(data: bytes, most: int) -> NDArray[np.integer]:
    reader = Reader(data)
    dtype, count = reader.head(most, "iu")
    width = reader.byte()
    if width > 8 * dtype.itemsize:
        raise FrameError(f"{width} bits do not fit into {dtype.name}")
    numbers = bits.unpack(bytes(reader.rest()), np.full(count, width, np.int64))
    return tokens.unfold(numbers).astype(dtype) if dtype.kind == "i" else numbers.astype(dtype)
