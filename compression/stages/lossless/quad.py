"""Four small integers to a byte, for a coder of bytes such as Huffman 1952, https://doi.org/10.1109/JRPROC.1952.273898."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedpress.common.errors import FrameError
from fedpress.compression.codec import Stage, Streams
from fedpress.compression.frame import ByteReader, put_head
from fedpress.compression.layout import Layout
from fedpress.compression.streams import take

_LARGE = "large"  # suffix of the stream of other numbers than 0, 1 and -1
_BLOCK = 1 << 16  # numbers, a multiple of four
_OTHER = 3  # the code of all numbers but 0, 1 and -1, whose codes are 0, 1 and 2


@dataclass(frozen=True)
class Quad(Stage):
    """Pack four integers of 0, 1 and -1 into a byte, and send others separately: `quad`, to be used before `zstd`.

    A code of whole bits suits four symbols of low entropy better than a single one.
    """

    lossless: ClassVar[bool] = True

    def encode(self, streams: Streams, layout: Layout, rng: np.random.Generator) -> Streams:
        out: Streams = {}
        for name, array in streams.items():
            if array.dtype.kind == "i" and array.dtype.itemsize <= 4:
                out[name], out[f"{name}.{_LARGE}"] = _pack(array)
            else:
                out[name] = array
        return out

    def decode(self, streams: Streams, layout: Layout) -> Streams:
        out: Streams = {}
        for name, array in streams.items():
            if name.endswith("." + _LARGE):
                continue
            large = streams.get(f"{name}.{_LARGE}")
            out[name] = array if large is None else _unpack(take(streams, name, np.uint8), large, layout.max_nbytes)
        if len(out) * 2 - sum(f"{name}.{_LARGE}" not in streams for name in out) != len(streams):
            raise FrameError("large numbers must belong to a stream")
        return out


def _pack(array: NDArray[np.signedinteger]) -> tuple[NDArray[np.uint8], NDArray[np.signedinteger]]:
    head = bytearray()
    put_head(head, array)
    table = np.full(256, _OTHER, np.uint8)
    table[[0, 1, 255]] = 0, 1, 2
    packed = np.empty((array.size + 3) // 4, np.uint8)
    large = []
    for first in range(0, array.size, _BLOCK):
        number = array[first : first + _BLOCK]
        # Numbers beyond 2 have the code of 2, that of all others.
        small = number if number.dtype == np.int8 else np.clip(number, -2, 2).astype(np.int8)
        code = table.take(small.view(np.uint8))
        large.append(number[code == _OTHER])
        four = np.pad(code, (0, -code.size % 4)).view("<u4")
        four = four | four >> np.uint32(6) | four >> np.uint32(12) | four >> np.uint32(18)
        packed[first // 4 : first // 4 + four.size] = four & np.uint32(0xFF)
    return np.concatenate([np.frombuffer(bytes(head), np.uint8), packed]), np.concatenate([array[:0], *large])


def _unpack(data: NDArray[np.uint8], large: NDArray[np.generic], max_nbytes: int) -> NDArray[np.signedinteger]:
    reader = ByteReader(data.tobytes())
    dtype, count = reader.head(max_nbytes, "i")
    packed = np.frombuffer(reader.rest(), np.uint8)
    if dtype.itemsize > 4 or large.dtype != dtype or packed.size != (count + 3) // 4:
        raise FrameError(
            f"{count} numbers of {dtype.name} must fit {packed.size} bytes, and others of {large.dtype.name}"
        )
    if count * dtype.itemsize > max_nbytes:
        raise FrameError(f"a stream must decode to at most {max_nbytes} bytes, got {count} of {dtype.name}")
    out = np.empty(count, dtype)
    at = 0
    for first in range(0, count, _BLOCK):
        four = packed[first // 4 : (first + _BLOCK) // 4].astype(np.uint32)
        four = (four | four << np.uint32(6) | four << np.uint32(12) | four << np.uint32(18)) & np.uint32(0x03030303)
        code = four.astype("<u4").view(np.int8)[: count - first]
        part = out[first : first + _BLOCK]
        np.copyto(part, code)
        part[code == 2] = -1
        other = np.flatnonzero(code == _OTHER)
        if at + other.size > large.size:
            raise FrameError("large numbers are missing")
        part[other] = large[at : at + other.size]
        at += other.size
    if at != large.size:
        raise FrameError(f"no large numbers must be left, got {large.size - at}")
    return out
