"""The wire frame: versioned, checksummed, self-describing, or short, without the head that its receiver knows.

docs/explanation/frame.md is its specification.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
SHORT = 2  # first byte of a short frame, and _FLAG if the update starts from a model
_FLAG = 0x80
_SHORT_HEAD = 1 + 4  # that byte, CRC-32 of the whole frame
# The dtypes that a stream can have, by the byte that stands for them. Append only.
DTYPES = tuple(np.dtype(name) for name in ("<f4", "<f2", "u1", "<u2", "<u4", "i1", "<i2", "<i4", "<i8", "<f8", "<u8"))


@dataclass(frozen=True)
class FrameHead:
    """The fields at the start of a frame; the receiver of a short frame has them already."""

    spec: str  # of the codec
    layout: bytes  # the layout's digest, 8 bytes
    base: bytes  # version of the model that the update starts from, 8 bytes; empty if it starts from none


@dataclass(frozen=True)
class Frame(FrameHead):
    """The parts of a frame. Streams are read-only views into the bytes."""

    streams: dict[str, NDArray[Any]]


@dataclass(frozen=True)
class _Stream:
    """A row of a frame's table of streams."""

    name: str
    dtype: np.dtype[Any]
    size: int = -1  # number of elements; -1 while it is not known
    fixed: bool = False  # whether the size follows from the name, so that a short frame leaves it out


def _stream(text: str) -> _Stream:
    name, dtype, size = f"{text}:".split(":")[:3]
    return _Stream(name, np.dtype(dtype), int(size or -1), fixed=bool(size))


# The streams that one byte of a short frame stands for, its place here counted from 1: name, dtype, and the number of
# elements where that is always the same. Append only.
_ROWS = tuple(
    tuple(_stream(text) for text in row.split())
    for row in (
        "vertices:u1",
        "values:<f4",
        "values:<f2",
        "values:<u2",
        "values:u1",
        "exact:u1",
        "scale:<f4",
        "scale:u1",
        "symbols:u1",
        "symbols:i1",
        "gap:u1",
        "gap:<u4",
        "mask:u1",
        "coin:<u8:2",
        "seed:<u4:1",
        "rest:<f4",
        "sizes:u1",
        "codebook:<f4",
        "left:<f4 right:<f4 rest:<f4",
        "step:<f4:1 symbols:u1 point:u1",
        "step:<f4:1 symbols:u1 point:u1 rank:u1 code:u1 points:u1 factors:u1",
        "side.name:u1:8",
    )
)


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
    table = [_Stream(name, _wire(array), array.size) for name, array in streams.items()]
    head = _head(FrameHead(spec, layout, base), table)
    payloads = [array.astype(_wire(array), copy=False).ravel().view(np.uint8).data for array in streams.values()]
    crc = zlib.crc32(head)
    for payload in payloads:
        crc = zlib.crc32(payload, crc)
    return b"".join([MAGIC, bytes([VERSION]), crc.to_bytes(4, "little"), head, *payloads])


def _head(known: FrameHead, table: Sequence[_Stream]) -> bytearray:
    """Return the bytes of a frame from its spec to its table of streams."""
    head = bytearray()
    text = known.spec.encode()
    put_varint(head, len(text))
    head += text + known.layout
    head.append(len(known.base))
    head += known.base
    head.append(len(table))
    for stream in table:
        _put_name(head, stream)
        put_varint(head, stream.size)
    return head


def _put_name(out: bytearray, stream: _Stream) -> None:
    out.append(len(stream.name.encode()))
    out += stream.name.encode()
    out.append(DTYPES.index(stream.dtype))


def shorten(frame: bytes) -> bytes:
    """Return `frame` without what a receiver of its codec, layout and base knows.

    Raises
    ------
    FrameError
        If it is not a whole frame.

    Examples
    --------
    >>> frame = write_frame("none", bytes(8), b"", {"values": np.zeros(9, np.float32)})
    >>> short = shorten(frame)
    >>> len(frame) - 36, len(short) - 36
    (31, 6)
    >>> read_frame(short, FrameHead("none", bytes(8), b"")).streams["values"].size
    9
    """
    read = read_frame(frame)
    table = [_Stream(name, array.dtype, array.size) for name, array in read.streams.items()]
    if not table:
        return frame
    out = bytearray([SHORT | (_FLAG if read.base else 0)]) + frame[3:_HEAD]
    sizes, at = bytearray(), 0
    while at < len(table):
        row = _row(table[at:])
        streams = _ROWS[row - 1] if row else table[at : at + 1]
        more = at + len(streams) < len(table)
        out.append(row | (_FLAG if more else 0))
        if not row:
            _put_name(out, table[at])
        for known, stream in zip(streams, table[at:], strict=False):
            if not known.fixed and stream is not table[-1]:
                put_varint(sizes, stream.size)
        at += len(streams)
    return bytes(out + sizes) + frame[len(frame) - sum(array.nbytes for array in read.streams.values()) :]


def _row(table: Sequence[_Stream]) -> int:
    """Return the number of the longest row that stands for the first streams of a table, 0 without one."""
    fits = [
        number
        for number, row in enumerate(_ROWS, 1)
        if len(row) <= len(table)
        and all(
            (known.name, known.dtype) == (stream.name, stream.dtype) and known.size in (-1, stream.size)
            for known, stream in zip(row, table, strict=False)
        )
    ]
    return max(fits, key=lambda number: len(_ROWS[number - 1]), default=0)


def has_base(frame: bytes) -> bool:
    """Return whether the update of a frame, short or whole, starts from a model; raise FrameError if it is no frame."""
    return bool(frame[0] & _FLAG) if is_short(frame) else read_frame(frame).base != b""


def is_short(frame: bytes) -> bool:
    """Return whether `frame` leaves out what its receiver knows."""
    return frame[:1] in (bytes([SHORT]), bytes([SHORT | _FLAG]))


def restore(short: bytes, known: FrameHead) -> bytes:
    """Return the whole frame that `short` was made of, unchecked; raise FrameError if `short` is not one."""
    starts = has_base(short)
    if starts and len(known.base) != 8:
        raise FrameError("a short frame starts from a model, which must be known")
    read = ByteReader(short, _SHORT_HEAD)
    table: list[_Stream] = []
    more = True
    while more:
        byte = read.byte()
        more, row = bool(byte & _FLAG), byte & ~_FLAG
        if row > len(_ROWS):
            raise FrameError(f"a row of streams must be at most {len(_ROWS)}, got {row}")
        table += _ROWS[row - 1] if row else [_Stream(read.text(read.byte()), read.dtype())]
        if len(table) > MAX_STREAMS:
            raise FrameError(f"a frame must have at most {MAX_STREAMS} streams, got {len(table)}")
    *others, last = table
    others = [stream if stream.fixed else replace(stream, size=read.varint(len(short))) for stream in others]
    payload = read.rest()
    if not last.fixed:
        left = len(payload) - sum(stream.size * stream.dtype.itemsize for stream in others)
        last = replace(last, size=max(0, left) // last.dtype.itemsize)
    head = _head(replace(known, base=known.base if starts else b""), [*others, last])
    return b"".join([MAGIC, bytes([VERSION]), short[1:_SHORT_HEAD], head, payload])


def read_frame(frame: bytes, known: FrameHead | None = None) -> Frame:
    """Return the parts of `frame`; raise FrameError if it is not a frame.

    Nothing of a whole frame is copied, and every length is checked against the bytes that are left before it is used.

    Parameters
    ----------
    known : FrameHead | None
        What a short frame leaves out. The checksum does not hold if it was made of something else.
    """
    if is_short(frame):
        if known is None:
            raise FrameError("a short frame can be read only where its codec, layout and base are known")
        frame = restore(frame, known)
    if len(frame) < _HEAD or frame[:2] != MAGIC:
        raise FrameError("not a frame: the magic bytes are missing")
    if frame[2] != VERSION:
        raise FrameError(f"the version of a frame must be {VERSION}, got {frame[2]}")
    if zlib.crc32(memoryview(frame)[_HEAD:]) != int.from_bytes(frame[3:_HEAD], "little"):
        raise FrameError("the checksum must match: the frame was changed, cut short, or made for something else")
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
        table.append(_Stream(read.text(size), read.dtype(), read.varint(len(frame))))
    if len({stream.name for stream in table}) != len(table):
        raise FrameError("names of streams must differ")
    streams: dict[str, NDArray[Any]] = {}
    for stream in table:
        streams[stream.name] = np.frombuffer(read.take(stream.size * stream.dtype.itemsize), stream.dtype)
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

    @property
    def left(self) -> int:
        """Number of bytes that are left."""
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        if size > self.left:
            raise FrameError(f"at most {self.left} bytes are left, {size} are announced")
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

    def dtype(self) -> np.dtype[Any]:
        """Return the dtype that the next byte stands for."""
        code = self.byte()
        if code >= len(DTYPES):
            raise FrameError(f"the code of a dtype must be below {len(DTYPES)}, got {code}")
        return DTYPES[code]

    def head(self, most: int, kinds: str) -> tuple[np.dtype[Any], int]:
        """Return the dtype, of one of the `kinds`, and the number of elements, at most `most`, from `put_head`."""
        dtype = self.dtype()
        if dtype.kind not in kinds:
            raise FrameError(f"a dtype must be of one of the kinds {kinds!r}, got {dtype}")
        return dtype, self.varint(most)

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
        if self.left:
            raise FrameError(f"no bytes must be left, got {self.left}")
