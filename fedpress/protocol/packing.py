"""Values by name in few bytes: in a compact binary form, deflated with a dictionary of what messages usually hold.

A value is one byte for its type, then what follows: nothing for a bool; eight bytes for a float; for an int, text and
bytes a varint and so many bytes; for a list a varint and so many values.
"""

import struct
import zlib
from collections.abc import Mapping
from typing import Any

from fedpress.common.errors import FrameError
from fedpress.compression.frame import ByteReader, put_varint

Scalar = bool | int | float | str | bytes
Value = Scalar | list[Any]  # as Flower's ConfigRecords and MetricRecords hold

_MOST = 1 << 22  # bytes that packed values may take before they are deflated
_LONGEST_INT = 9  # bytes, for 64 bits and a sign
_BOOLS = {ord("F"): False, ord("T"): True}
# What messages usually hold, in their order: both ends must have the same, so it is written out here and never changed.
_REPLY: dict[str, Value] = {
    "kind": "reply",
    "version": bytes(8),
    "turn": 0,
    "tensors": b"",
    "answer": bytes(16),
    "training_seconds": 0.0,
    "coding_seconds": 0.0,
    "0": "frame",
    "1.num-examples": 600,
    "1.train_loss": 0.5,
    "1.steps": 60,
    "1.loss": 0.5,
    "1.accuracy": 0.5,
    "folded": ["arrays", "metrics"],
    "kinds": "fm",
}
_REQUEST: dict[str, Value] = {
    "kind": "train",
    "arrays": "arrays",
    "frame_lengths": [600],
    "frame_specs": ["qsgd(4) | ans", "none", "even(0.5) | lowrank(nmse=0.3) | ans", "lowrank(nmse=0.3) | ans"],
    "frame_tensors": [b""],
    "weight_mask_length": 0,
    "version": bytes(8),
    "layout": "",
    "weight_masks": False,
    "keep": True,
    "up": "crosspolytope(noise=",
    "exclude": b"",
    "accepted": b"",
    "turn": 0,
    "server": bytes(8),
    "nonce": bytes(16),
    "round": 1,
    "seed": 0,
    "0": "frame",
    "1.server-round": 1,
    "folded": ["arrays", "config"],
    "kinds": "fc",
}


def pack(values: Mapping[str, Value]) -> bytes:
    """Return `values` as bytes.

    Examples
    --------
    >>> unpack(pack({"round": 3, "nonce": b"1", "lengths": [1, 2]}))
    {'round': 3, 'nonce': b'1', 'lengths': [1, 2]}
    """
    deflate = zlib.compressobj(9, wbits=-zlib.MAX_WBITS, zdict=_DICTIONARY)
    return deflate.compress(_write(values)) + deflate.flush()


def unpack(data: bytes) -> dict[str, Value]:
    """Return the values that `pack` was given; raise FrameError if `data` is not from there."""
    inflate = zlib.decompressobj(-zlib.MAX_WBITS, zdict=_DICTIONARY)
    try:
        plain = inflate.decompress(data, _MOST)
    except zlib.error as error:
        raise FrameError(f"packed values must be deflated: {error}") from error
    if not inflate.eof or inflate.unused_data:
        raise FrameError(f"packed values must end, within {_MOST} bytes")
    read, values = ByteReader(plain), {}
    while read.left:
        name = read.text(read.varint(_MOST))
        values[name] = _read_value(read)
    return values


def _write(values: Mapping[str, Value]) -> bytes:
    out = bytearray()
    for name, value in values.items():
        _put(out, name.encode())
        _put_value(out, value)
    return bytes(out)


def _put(out: bytearray, data: bytes) -> None:
    put_varint(out, len(data))
    out += data


def _put_value(out: bytearray, value: Value) -> None:
    match value:
        case bool():
            out += b"T" if value else b"F"
        case int():
            out += b"i"
            _put(out, value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True))
        case float():
            out += b"f" + struct.pack("<d", value)
        case str():
            out += b"s"
            _put(out, value.encode())
        case bytes():
            out += b"b"
            _put(out, value)
        case list():
            out += b"l"
            put_varint(out, len(value))
            for item in value:
                _put_value(out, item)


def _read_value(read: ByteReader, *, nested: bool = False) -> Value:
    kind = read.byte()
    if kind in _BOOLS:
        return _BOOLS[kind]
    if kind == ord("f"):
        return float(struct.unpack("<d", read.take(8))[0])
    size = read.varint(_MOST)
    match chr(kind):
        case "i" if size <= _LONGEST_INT:
            return int.from_bytes(read.take(size), "little", signed=True)
        case "s":
            return read.text(size)
        case "b":
            return read.take(size)
        case "l" if not nested:
            return [_read_value(read, nested=True) for _ in range(size)]
    raise FrameError(f"a packed value must be of a known type, got type {kind} with {size} bytes or items")


_DICTIONARY = _write(_REPLY) + _write(_REQUEST)
