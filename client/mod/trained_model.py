"""The model that an app returns, in the layout of the one that it was given, and how far it is from that one."""

import logging
import math
from functools import cache

import numpy as np
from flwr.app import Array, ArrayRecord, Message
from numpy.typing import NDArray

from fedpress.common.errors import UpdateError
from fedpress.common.logs import LOGGER
from fedpress.compression import Update
from fedpress.protocol.arrays import arrays_of

MOST_NORM = 2.0**63  # of an update: the square of a larger one is infinite in float32

_log = logging.getLogger(LOGGER)


def take_model(reply: Message, key: str, given: ArrayRecord) -> tuple[str, Update]:
    """Remove the trained model from a reply; return its record's name, and its tensors as `given` has them.

    Tensors of another width are converted, and those that the app left out are unchanged, as an app returns that trains
    a part of its model. The record stays empty until it holds the frame: a device may not have the memory for both.

    Parameters
    ----------
    reply : Message
        The app's reply; the model is its only ArrayRecord, the one under `key`, or the only one with its tensors.
    key : str
        Name of the model's ArrayRecord in the request.
    given : ArrayRecord
        The model that the app was given.

    Raises
    ------
    UpdateError
        If there is no such ArrayRecord, it is empty, or it has tensors of other names, shapes or kinds than `given`.
    """
    records = reply.content.array_records
    matching = list(records) if len(records) == 1 else [n for n, r in records.items() if r.keys() == given.keys()]
    name = key if key in records or len(matching) != 1 else matching[0]
    if name not in records:
        raise UpdateError(f"one ArrayRecord of a reply must be the model, {key!r}, got {sorted(records) or 'none'}")
    returned = arrays_of(records[name])
    if not returned:
        raise UpdateError(f"a reply's model must have at least one tensor, got an empty ArrayRecord {name!r}")
    reply.content[name] = ArrayRecord()
    extra = returned.keys() - given.keys()
    if extra:
        raise UpdateError(f"a reply's model must have the tensors of the request's, got {', '.join(sorted(extra))} too")
    if len(returned) < len(given):
        _log_partial(len(returned), len(given))
    return name, {
        tensor: _convert(tensor, returned.pop(tensor), array) if tensor in returned else array.numpy()
        for tensor, array in given.items()
    }


def norm_of_change(trained: Update, given: ArrayRecord) -> float:
    """Return the L2 norm of the change of all floating-point tensors; NaN or infinite if a value is."""
    total = 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for name, array in trained.items():
            if array.dtype.kind in "fc":
                total += float(np.square(np.abs(array - given[name].numpy()), dtype=np.float64).sum())
    return math.sqrt(total)


@cache  # said once
def _log_partial(returned: int, all_tensors: int) -> None:
    _log.info("the app returns %d of the model's %d tensors: the others are unchanged", returned, all_tensors)


def _convert(name: str, array: NDArray[np.generic], wanted: Array) -> NDArray[np.generic]:
    """Return `array` in the dtype and shape of `wanted`; raise UpdateError if that would lose more than precision."""
    dtype = np.dtype(wanted.dtype)
    kinds = "biufc" if dtype.kind == "c" else "biuf"
    with np.errstate(over="ignore", invalid="ignore"):
        converted = array.astype(dtype, copy=False) if array.dtype.kind in kinds else array
    fits = converted.dtype == dtype and (dtype.kind in "fc" or np.array_equal(converted, array))
    if not fits or np.squeeze(array).shape != np.squeeze(np.empty(wanted.shape, np.bool_)).shape:
        raise UpdateError(
            f"tensor {name!r} must be {wanted.dtype}{list(wanted.shape)}, or convert to it, "
            f"got {array.dtype.name}{list(array.shape)}"
        )
    return converted.reshape(wanted.shape)
