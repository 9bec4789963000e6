"""Updates: the difference of two models, a model with an update applied, and the version of a model."""

import hashlib
from collections.abc import Mapping

import numpy as np

from fedpress.compression.layout import Layout, Update


def version_of(model: Mapping[str, np.ndarray], layout: Layout) -> bytes:
    """Return the version of `model`, 8 bytes: the hash of its layout and of its tensors' bytes.

    Examples
    --------
    >>> model = {"w": np.zeros(2, np.float32)}
    >>> version_of(model, Layout.of(model)).hex()
    'eddb501f6f7ef748'
    """
    state = hashlib.blake2b(layout.digest, digest_size=8)
    for tensor in layout.tensors:
        array = np.ascontiguousarray(model[tensor.name])
        state.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return state.digest()


def difference(new: Mapping[str, np.ndarray], old: Mapping[str, np.ndarray], layout: Layout) -> Update:
    """Return the update of `layout`'s tensors from `old` to `new`: floats subtracted, all else as in `new`."""
    return {t.name: np.asarray(new[t.name] - old[t.name]) if t.floating else new[t.name] for t in layout.tensors}


def apply(old: Mapping[str, np.ndarray], update: Mapping[str, np.ndarray], layout: Layout) -> Update:
    """Return `old` with an update of some of `layout`'s tensors: elementwise, so the same bits on every machine."""
    added = {
        t.name: old[t.name] + update[t.name] if t.floating else update[t.name]
        for t in layout.tensors
        if t.name in update
    }
    return representable({**old, **added}, layout)


def changed(new: Mapping[str, np.ndarray], old: Mapping[str, np.ndarray]) -> set[str]:
    """Return the names of the tensors that differ, in any bit."""
    return {name for name, array in new.items() if array.tobytes() != old[name].tobytes()}


def representable(model: Mapping[str, np.ndarray], layout: Layout) -> Update:
    """Return `model` with float64 tensors rounded to float32's values, which a key frame holds exactly."""
    return {
        t.name: np.asarray(model[t.name]).astype(np.float32).astype(t.dtype)
        if t.dtype == "float64"
        else np.asarray(model[t.name])
        for t in layout.tensors
    }
