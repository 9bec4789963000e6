"""Updates: the difference of two models, a model with an update applied, and the name of a model."""

import hashlib
from collections.abc import Mapping

import numpy as np

from fedpress.compression.layout import Layout, Update


def version_of(model: Mapping[str, np.ndarray], layout: Layout) -> bytes:
    """Return the name of `model`, 8 bytes: the hash of its tensors' bytes, so that nobody trains on a wrong one."""
    state = hashlib.blake2b(layout.digest, digest_size=8)
    for tensor in layout.tensors:
        array = np.ascontiguousarray(model[tensor.name])
        state.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return state.digest()


def difference(new: Mapping[str, np.ndarray], old: Mapping[str, np.ndarray], layout: Layout) -> Update:
    """Return the update of `layout`'s tensors from `old` to `new`: floats subtracted, all else as it is in `new`."""
    return {t.name: np.asarray(new[t.name] - old[t.name]) if t.floating else new[t.name] for t in layout.tensors}


def apply(old: Mapping[str, np.ndarray], update: Mapping[str, np.ndarray], layout: Layout) -> Update:
    """Return `old` after `update`, of some of `layout`'s tensors: elementwise, so with the same bits everywhere."""
    added = {
        t.name: old[t.name] + update[t.name] if t.floating else update[t.name]
        for t in layout.tensors
        if t.name in update
    }
    return representable({**old, **added}, layout)


def changed(new: Mapping[str, np.ndarray], old: Mapping[str, np.ndarray]) -> set[str]:
    """Return the names of the tensors that are not the same, bit for bit, in both."""
    return {name for name, array in new.items() if array.tobytes() != old[name].tobytes()}


def representable(model: Mapping[str, np.ndarray], layout: Layout) -> Update:
    """Return `model` with float64 tensors rounded to float32's values: a key frame can then hold it exactly."""
    return {
        t.name: np.asarray(model[t.name]).astype(np.float32).astype(t.dtype)
        if t.dtype == "float64"
        else np.asarray(model[t.name])
        for t in layout.tensors
    }
