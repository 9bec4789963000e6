"""Compression: named tensors in, a frame of bytes out, and back. Imports no flwr, and torch in `model/` only.

`parse("ef | topk(0.01) | uniform(4) | ans")` is a codec; `Layout.of(update)` the names, shapes and dtypes that both
ends agree on. A codec's `encode` turns an update and a state into a frame and the next state; `decode` raises
FrameError and nothing else. `parse_trusted` is `parse` for specs of this process's user: it imports what they name. Add
a method as one file in `stages/` and one entry in `registry.py`.
"""

from fedpress.common.errors import DataError, FedpressError, FrameError, SettingError, SpecError, UpdateError
from fedpress.compression.codec import Codec, Stage, State, Streams
from fedpress.compression.layout import Layout, Update
from fedpress.compression.spec import parse, parse_stateless, parse_trusted, read_codec
from fedpress.compression.third_party import codecs

__all__ = [
    "Codec",
    "DataError",
    "FedpressError",
    "FrameError",
    "Layout",
    "SettingError",
    "SpecError",
    "Stage",
    "State",
    "Streams",
    "Update",
    "UpdateError",
    "codecs",
    "parse",
    "parse_stateless",
    "parse_trusted",
    "read_codec",
]
