"""Zstandard, Collet and Kucherawy 2021, https://www.rfc-editor.org/rfc/rfc8878."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import zstandard
from numpy.typing import NDArray

from fedpress.common.errors import FrameError, SpecError
from fedpress.compression.codec import Stage, Streams
from fedpress.compression.frame import ByteReader, put_head, to_bytes
from fedpress.compression.layout import Layout
from fedpress.compression.streams import take

_LEAST_WINDOW = 1 << 19  # bytes; level 1 asks for this much whatever the size


@dataclass(frozen=True)
class Zstd(Stage):
    """Compress every stream, floats included, with Zstandard at level 1 (fast) to 22 (small): `zstd(level)`."""

    lossless: ClassVar[bool] = True

    level: int = 3

    def __post_init__(self) -> None:
        if not 1 <= self.level <= 22:
            raise SpecError(f"zstd's level must be 1 to 22, got {self.level}")

    def encode(self, streams: Streams, layout: Layout, rng: np.random.Generator) -> Streams:
        return {name: self._press(array) for name, array in streams.items()}

    def decode(self, streams: Streams, layout: Layout) -> Streams:
        max_nbytes, back = layout.max_nbytes, {}
        for name in streams:
            back[name] = _restore(take(streams, name, np.uint8).tobytes(), max_nbytes)
            max_nbytes -= back[name].nbytes
        return back

    def _press(self, array: NDArray[Any]) -> NDArray[np.uint8]:
        head = bytearray()
        put_head(head, array)
        plain = to_bytes(array)
        # The frame has its own size, checksum and end: zstd's would be sent twice.
        parameters = zstandard.ZstdCompressionParameters.from_level(
            self.level, source_size=len(plain), write_content_size=False, format=zstandard.FORMAT_ZSTD1_MAGICLESS
        )
        data = zstandard.ZstdCompressor(compression_params=parameters).compress(plain)
        return np.frombuffer(bytes(head) + data, np.uint8)


def _restore(data: bytes, max_nbytes: int) -> NDArray[Any]:
    reader = ByteReader(data)
    dtype, count = reader.head(max_nbytes, "fiu")
    size = count * dtype.itemsize
    if size > max_nbytes:
        raise FrameError(f"a stream must decode to at most {max_nbytes} bytes, got {count} of {dtype.name}")
    # The sender asks for the window's memory: at most the size of the result.
    window = max(_LEAST_WINDOW, 1 << (max_nbytes - 1).bit_length())
    press = zstandard.ZstdDecompressor(format=zstandard.FORMAT_ZSTD1_MAGICLESS, max_window_size=min(window, 1 << 27))
    try:
        # One byte more than announced is enough to see that there is more.
        with press.stream_reader(bytes(reader.rest()), read_size=1 << 16) as stream:
            plain = stream.read(size + 1)
    except zstandard.ZstdError as error:
        raise FrameError(f"zstd: {error}") from error
    if len(plain) != size:
        raise FrameError(f"zstd must decompress to the {size} bytes that are announced")
    return np.frombuffer(plain, dtype)
