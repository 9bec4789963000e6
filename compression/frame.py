"""The wire frame: self-describing, versioned, checksummed. docs/explanation/frame.md is its specification."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpress.common.errors import FrameError, UpdateError

MAGIC = b"fp"
VERSION = 1
_HEAD = len(MAGIC) + 1 + 4  # magic, version, CRC-32 of all that follows
MAX_SPEC = 1024  # bytes of a spec
MAX_NAME = 32  # bytes of a stream's name
MAX_STREAMS = 64
# The dtypes that a stream can have, by the byte that stands for them. Append only.
DTYPES = tuple(np.dtype(name) for name in ("<f4", "<f2", "u1", "<u2", "<u4", "i1", "<i2", "<i4", "<i8", "<f8", "<u8"))


@dataclass(frozen=True)
class Frame:
    """The parts of a frame. Streams are read-only views into the bytes."""

    spec: str  # of the codec
    layout: bytes  # the layout's digest, 8 bytes
    base: bytes  # version of the model that the update starts from, 8 bytes; empty if it starts from none
    streams: dict[str, NDArray[Any]]


def write_frame(spec: str, layout: bytes, base: bytes, streams: Mapping[str, NDArray[Any]]) -> bytes:
    """Return a frame.

    Parameters
    ----------
    layout : bytes
        Digest of the layout, 8 bytes.
    base : bytes
        Version of the model that the update starts from, 8 bytes; empty for a key frame.

    Raises
    ------
    UpdateError
        If `base` is not a version.
    """
    if len(base) not in (0, 8):
        raise UpdateError(f"base must have 8 bytes, or none for a key frame, got {base!r}")
    head = bytearray()
    text = spec.encode()
    put_varint(head, len(text))
    head += text + layout
    head.append(len(base))
    head += base
    head.append(len(streams))
    for name, array in streams.items():
        head.append(len(name))
        head += name.encode()
        put_head(head, array)
    payloads = [array.astype(_wire(array), copy=False).ravel().view(np.uint8).data for array in streams.values()]
    crc = zlib.crc32(head)
    for payload in payloads:
        crc = zlib.crc32(payload, crc)
    return b"".join([MAGIC, bytes([VERSION]), crc.to_bytes(4, "little"), head, *payloads])


def read_frame(frame: bytes) -> Frame:
    """Return the parts of `frame`; raise FrameError if it is not a frame.

    Nothing is copied, and every length is checked against the bytes that are left before it is used.
    """
    if len(frame) < _HEAD or frame[:2] != MAGIC:
        raise FrameError("not a frame: the magic bytes are missing")
    if frame[2] != VERSION:
        raise FrameError(f"the version of a frame must be {VERSION}, got {frame[2]}")
    if zlib.crc32(memoryview(frame)[_HEAD:]) != int.from_bytes(frame[3:_HEAD], "little"):
        raise FrameError("the checksum must match: the frame was changed or cut short")
    read = ByteReader(frame, _HEAD)
    spec = read.text(read.varint(MAX_SPEC))
    layout = read.take(8)
    base_size = read.byte()
    if base_size not in (0, 8):
        raise FrameError(f"a base must have 0 or 8 bytes, got {base_size}")
    base = read.take(base_size)
    count = read.byte()
    if count > MAX_STREAMS:
        raise FrameError(f"a frame must have at most {MAX_STREAMS} streams, got {count}")
    table = []
    for _ in range(count):
        size = read.byte()
        if not 0 < size <= MAX_NAME:
            raise FrameError(f"a stream's name must have 1 to {MAX_NAME} bytes, got {size}")
        name, code = read.text(size), read.byte()
        if code >= len(DTYPES):
            raise FrameError(f"the code of a dtype must be below {len(DTYPES)}, got {code}")
        table.append((name, DTYPES[code], read.varint(len(frame))))
    if len({name for name, _, _ in table}) != len(table):
        raise FrameError("names of streams must differ")
    streams: dict[str, NDArray[Any]] = {}
    for name, dtype, size in table:
        streams[name] = np.frombuffer(read.take(size * dtype.itemsize), dtype)
    read.end()
    return Frame(spec, layout, base, streams)


def put_head(out: bytearray, array: NDArray[Any]) -> None:
    """Append the code of `array`'s dtype and its number of elements."""
    out.append(DTYPES.index(_wire(array)))
    put_varint(out, array.size)


def to_bytes(array: NDArray[Any]) -> bytes:
    """Return the elements of `array`, little-endian."""
    return array.astype(_wire(array), copy=False).tobytes()


def _wire(array: NDArray[Any]) -> np.dtype[Any]:
    return array.dtype.newbyteorder("<") if array.dtype.itemsize > 1 else array.dtype


def put_varint(out: bytearray, value: int) -> None:
    """Append `value`, at least 0, in LEB128: 7 bits per byte, low ones first, the top bit set on all but the last."""
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


class ByteReader:
    """Reads bytes from front to back; raises FrameError if they end too soon."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self._data = memoryview(data)
        self._at = at

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        if size > len(self._data) - self._at:
            raise FrameError(f"at most {len(self._data) - self._at} bytes are left, {size} are announced")
        self._at += size
        return bytes(self._data[self._at - size : self._at])

    def byte(self) -> int:
        """Return the next byte."""
        return self.take(1)[0]

    def varint(self, most: int) -> int:
        """Return the next number in LEB128, of at most nine bytes and at most `most`."""
        value = 0
        for shift in range(0, 63, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
        else:
            raise FrameError("a number must have at most nine bytes")
        if value > most:
            raise FrameError(f"a number must be at most {most}, got {value}")
        return value

    def head(self, most: int, kinds: str) -> tuple[np.dtype[Any], int]:
        """Return the dtype, of one of the `kinds`, and the number of elements, at most `most`, from `put_head`."""
        code = self.byte()
        if code >= len(DTYPES) or DTYPES[code].kind not in kinds:
            raise FrameError(f"the code of a dtype must be that of one of the kinds {kinds!r}, got {code}")
        return DTYPES[code], self.varint(most)

    def text(self, size: int) -> str:
        """Return the next `size` bytes as text."""
        try:
            return self.take(size).decode()
        except UnicodeDecodeError as error:
            raise FrameError("a name must be UTF-8") from error

    def rest(self) -> memoryview:
        """Return all bytes that are left."""
        at, self._at = self._at, len(self._data)
        return self._data[at:]

    def end(self) -> None:
        """Raise FrameError if bytes are left."""
        if self._at != len(self._data):
            raise FrameError(f"no bytes must be left, got {len(self._data) - self._at}")
