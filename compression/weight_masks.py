"""Masks of pruned weights, which are not sent. The model itself holds them: a pruned weight is minus zero.

So both ends have the masks with the model, checked with it, and send bytes only for what changes. Only floating-point
tensors of two axes or more have pruned weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fedpress.compression.codec import State
from fedpress.compression.entropy import bitmask_coder
from fedpress.compression.frame import ByteReader
from fedpress.compression.layout import Layout, TensorSpec, Update

Mask = NDArray[np.bool_]
Arrays = Mapping[str, NDArray[np.generic]]

_RANKS = 16  # classes of weights that were not pruned, by their magnitude among those of their tensor
_GROUPS = 14  # tensors with separate classes; all further ones share the last one's
_PRUNED = _RANKS  # the class of weights that were pruned


@dataclass(frozen=True, eq=False)
class WeightMasks:
    """The masks of the tensors in which weights are pruned.

    Parameters
    ----------
    by_name : mapping of str to Mask
        Mask of each such tensor, bool (size,) in C order: False where a weight is pruned.

    Examples
    --------
    >>> model = {"w": np.array([[1.0, -0.0], [2.0, 3.0]], np.float32)}
    >>> WeightMasks.of(model, Layout.of(model)).select(model)["w"].tolist()
    [1.0, 2.0, 3.0]
    """

    by_name: Mapping[str, Mask]

    @classmethod
    def of(cls, model: Arrays, layout: Layout) -> Self:
        """Return the masks that `model` holds."""
        pruned = {t.name: _pruned(model[t.name]) for t in prunable(layout)}
        return cls({name: ~mask for name, mask in pruned.items() if mask.any()})

    def equals(self, other: "WeightMasks") -> bool:
        """Return whether the same weights are pruned."""
        return self.by_name.keys() == other.by_name.keys() and all(
            np.array_equal(mask, other.by_name[name]) for name, mask in self.by_name.items()
        )

    def mask(self, tensor: TensorSpec) -> Mask:
        """Return the mask of a tensor, bool (size,)."""
        return self.by_name[tensor.name] if tensor.name in self.by_name else np.ones(tensor.size, np.bool_)

    def unpruned(self, layout: Layout) -> Layout:
        """Return the layout of what `select` returns: a tensor with pruned weights has one axis."""
        return Layout(
            tuple(
                TensorSpec(t.name, (int(self.by_name[t.name].sum()),), t.dtype) if t.name in self.by_name else t
                for t in layout.tensors
            )
        )

    def select(self, update: Arrays) -> Update:
        """Return the weights of `update` that are not pruned."""
        return {
            name: array.reshape(-1)[self.by_name[name]] if name in self.by_name else np.asarray(array)
            for name, array in update.items()
        }

    def restore(self, update: Arrays, layout: Layout) -> Update:
        """Return the tensors of `layout` of which `select` returned `update`, zero where a weight is pruned."""
        return {t.name: self._restore(update[t.name], t) for t in layout.tensors if t.name in update}

    def apply(self, model: Arrays) -> Update:
        """Return `model` with minus zero for the pruned weights, and for no others."""
        masked = {name: np.asarray(array) for name, array in model.items()}
        for name, mask in self.by_name.items():
            if name in model:
                array: NDArray[Any] = np.array(model[name])
                array += np.zeros((), array.dtype)  # minus zero becomes zero in weights that are not pruned
                array[~mask.reshape(array.shape)] = -0.0
                masked[name] = array
        return masked

    def select_state(self, state: State, layout: Layout) -> State:
        """Return the part of a codec's state, of the tensors of `layout`, for weights that are not pruned."""
        flat = self._flat(layout)
        return {key: array[flat] if array.shape == flat.shape else array for key, array in state.items()}

    def restore_state(self, state: State, layout: Layout) -> State:
        """Return the codec's state of which `select_state` returned `state`, zero where a weight is pruned."""
        if not self.by_name:
            return state
        flat = self._flat(layout)
        count, restored = (int(flat.sum()),), {}
        for key, array in state.items():
            restored[key] = array
            if array.shape == count:
                restored[key] = np.zeros(flat.shape, array.dtype)
                restored[key][flat] = array
        return restored

    def _restore(self, array: NDArray[np.generic], tensor: TensorSpec) -> NDArray[np.generic]:
        if tensor.name not in self.by_name:
            return array
        full = np.zeros(tensor.size, array.dtype)
        full[self.by_name[tensor.name]] = array
        return full.reshape(tensor.shape)

    def _flat(self, layout: Layout) -> Mask:
        return np.concatenate([np.zeros(0, np.bool_), *(self.mask(tensor) for tensor in layout.lossy)])


UNPRUNED = WeightMasks({})  # of a model without pruned weights


def prunable(layout: Layout) -> tuple[TensorSpec, ...]:
    """Return the tensors that may have pruned weights."""
    return tuple(tensor for tensor in layout.lossy if len(tensor.shape) > 1)


def encode_mask_change(new: WeightMasks, base: Arrays | None, layout: Layout) -> bytes:
    """Return the bytes that lead from the masks of `base` to `new`; empty if they are the same.

    Small weights are pruned before large ones, so masks are coded by the magnitude of each weight in `base`.

    Parameters
    ----------
    base : Arrays | None
        Model that the receiver holds; None if it holds none, and all weights count as not pruned.
    """
    old = UNPRUNED if base is None else WeightMasks.of(base, layout)
    if new.equals(old):
        return b""
    masks = [new.mask(tensor) for tensor in prunable(layout)]
    return bitmask_coder.encode(np.concatenate([np.zeros(0, np.bool_), *masks]), _classes(base, layout))


def decode_mask_change(data: bytes, base: Arrays | None, layout: Layout) -> WeightMasks:
    """Return the masks that were given to `encode_mask_change`; raise FrameError if `data` is not of its making."""
    if not data:
        return UNPRUNED if base is None else WeightMasks.of(base, layout)
    reader = ByteReader(data)
    found = bitmask_coder.decode(reader, _classes(base, layout))
    reader.end()
    masks: dict[str, Mask] = {}
    at = 0
    for tensor in prunable(layout):
        mask, at = found[at : at + tensor.size], at + tensor.size
        if not mask.all():
            masks[tensor.name] = mask
    return WeightMasks(masks)


def _pruned(array: NDArray[np.generic]) -> Mask:
    flat = np.asarray(array).reshape(-1)
    return np.asarray((flat == 0) & np.signbit(flat))


def _classes(base: Arrays | None, layout: Layout) -> NDArray[np.uint8]:
    """Return the class of each weight that may be pruned, uint8 (n,), by its magnitude in `base`."""
    classes = [np.zeros(0, np.uint8)]
    for number, tensor in enumerate(prunable(layout)):
        own = np.zeros(tensor.size, np.uint8)
        if base is not None:
            values = np.asarray(base[tensor.name]).reshape(-1)
            unpruned = np.flatnonzero(~_pruned(values))
            # Comparisons and ties by place: the same ranks on every machine.
            ranks = np.argsort(np.argsort(np.abs(values[unpruned]), kind="stable"), kind="stable")
            own[:] = _PRUNED
            own[unpruned] = ranks * _RANKS // max(1, unpruned.size)
        classes.append(own + np.uint8(min(number, _GROUPS - 1) * (_RANKS + 1)))
    return np.concatenate(classes)
