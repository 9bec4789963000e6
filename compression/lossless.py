"""Models whose layout is another each time, as trees' is: a lossless frame, and the layout beside it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpress.compression.errors import FrameError, UpdateError
from fedpress.compression.layout import Layout, Update
from fedpress.compression.spec import parse

_CODEC = parse("zstd(19)")
_MOST = 1 << 28  # bytes that a frame may become: what announces more is refused


def squeeze(model: Mapping[str, NDArray[Any]]) -> tuple[bytes, str]:
    """Return `model`, arrays of integers of any shape, as a frame, and its layout as text.

    Raises UpdateError if an array is of another kind: a model of floats has a layout that stays, and better codecs.
    """
    layout = Layout.of(model)
    if layout.floating:
        raise UpdateError(f"tensor {layout.floating[0].name!r} is {layout.floating[0].dtype}: trees travel as integers")
    frame, _ = _CODEC.encode(dict(model), {}, np.random.default_rng(0))
    return frame, layout.text


def expand(frame: bytes, text: str) -> Update:
    """Return the model of which `squeeze` made `frame` and `text`; raise FrameError if it made no such thing."""
    layout = Layout.read(text)
    if layout.nbytes > _MOST:
        raise FrameError(f"a model of {layout.nbytes} bytes is announced, at most {_MOST} are taken")
    return _CODEC.decode(frame, layout)
