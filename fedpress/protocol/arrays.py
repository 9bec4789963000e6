"""Models and frames as the ArrayRecords of Flower's messages."""

from collections.abc import Mapping

import numpy as np
from flwr.app import Array, ArrayRecord
from numpy.typing import NDArray

from fedpress.common.errors import FrameError
from fedpress.compression import Update
from fedpress.protocol.messages import FRAME_STYPE


def model_record(model: Mapping[str, NDArray[np.generic]]) -> ArrayRecord:
    """Return `model`, tensor by name, as the ArrayRecord that apps and strategies expect."""
    return ArrayRecord({name: Array(np.asarray(array, order="C")) for name, array in model.items()})


def arrays_of(record: ArrayRecord | None) -> Update:
    """Return the tensors of `record` by name; empty without a record."""
    return {name: array.numpy() for name, array in record.items()} if record else {}


def frame_record(data: bytes) -> ArrayRecord:
    """Return frames as the ArrayRecord that takes a model's place in a message."""
    return ArrayRecord({"frame": Array("uint8", (len(data),), FRAME_STYPE, data)})


def holds_frame(record: ArrayRecord) -> bool:
    """Return whether `record` holds a frame, as `frame_record` makes it, and not tensors."""
    return any(array.stype == FRAME_STYPE for array in record.values())


def read_frame_record(record: ArrayRecord | None) -> bytes:
    """Return the frames that `frame_record` was given; raise FrameError if `record` holds anything else."""
    arrays = list(record.values()) if record else []
    if len(arrays) != 1 or arrays[0].stype != FRAME_STYPE:
        raise FrameError("a record of frames must hold one array, of frames")
    return arrays[0].data
