"""Live weights and dead ones: only the live travel, and where they are is said by the model itself.

A dead weight is minus zero, a live one is anything else: so a mask is part of the very model that both ends hold, under
the same name, kept and checked with it, and costs no byte but where it changes. Only floating-point tensors of two axes
or more have dead weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fedpress.compression.codec import State
from fedpress.compression.entropy import bitmask_coder
from fedpress.compression.frame import Reader
from fedpress.compression.layout import Layout, Tensor, Update

Mask = NDArray[np.bool_]
Arrays = Mapping[str, NDArray[np.generic]]

_RANKS = 16  # classes of live weights, by their magnitude among those of their tensor
_GROUPS = 14  # tensors that have classes of their own; all further ones share the last one's
_DEAD = _RANKS  # the class of weights that were dead


@dataclass(frozen=True, eq=False)
class Live:
    """Which weights are live, in the tensors of which some are dead: each mask is flat, in C order."""

    masks: Mapping[str, Mask]

    @classmethod
    def of(cls, model: Arrays, layout: Layout) -> Self:
        """Return what `model` says itself."""
        dead = {t.name: _dead(model[t.name]) for t in prunable(layout)}
        return cls({name: ~mask for name, mask in dead.items() if mask.any()})

    def same(self, other: "Live") -> bool:
        """Whether the same weights are live."""
        return self.masks.keys() == other.masks.keys() and all(
            np.array_equal(mask, other.masks[name]) for name, mask in self.masks.items()
        )

    def mask(self, tensor: Tensor) -> Mask:
        """Return the mask of a tensor, flat."""
        return self.masks[tensor.name] if tensor.name in self.masks else np.ones(tensor.size, np.bool_)

    def part(self, layout: Layout) -> Layout:
        """Return the layout of the live weights: one axis where some are dead."""
        return Layout(
            tuple(
                Tensor(t.name, (int(self.masks[t.name].sum()),), t.dtype) if t.name in self.masks else t
                for t in layout.tensors
            )
        )

    def take(self, update: Arrays) -> Update:
        """Return the live weights of `update`."""
        return {
            name: array.reshape(-1)[self.masks[name]] if name in self.masks else np.asarray(array)
            for name, array in update.items()
        }

    def put(self, update: Arrays, layout: Layout) -> Update:
        """Return what `take` took from tensors of `layout`, zero where a weight is dead."""
        return {t.name: self._put(update[t.name], t) for t in layout.tensors if t.name in update}

    def stamp(self, model: Arrays) -> Update:
        """Return `model` with its dead weights minus zero, and no live one."""
        stamped = {name: np.asarray(array) for name, array in model.items()}
        for name, mask in self.masks.items():
            if name in model:
                array: NDArray[Any] = np.array(model[name])
                array += np.zeros((), array.dtype)  # a live minus zero becomes zero
                array[~mask.reshape(array.shape)] = -0.0
                stamped[name] = array
        return stamped

    def thin(self, state: State, layout: Layout) -> State:
        """Return a codec's memory of the tensors of `layout` as that of the live weights: what is dead is dropped."""
        flat = self._flat(layout)
        return {key: array[flat] if array.shape == flat.shape else array for key, array in state.items()}

    def wide(self, state: State, layout: Layout) -> State:
        """Return a codec's memory of the live weights as that of the tensors of `layout`, zero where one is dead."""
        if not self.masks:
            return state
        flat = self._flat(layout)
        count, widened = (int(flat.sum()),), {}
        for key, array in state.items():
            widened[key] = array
            if array.shape == count:
                widened[key] = np.zeros(flat.shape, array.dtype)
                widened[key][flat] = array
        return widened

    def _put(self, array: NDArray[np.generic], tensor: Tensor) -> NDArray[np.generic]:
        if tensor.name not in self.masks:
            return array
        full = np.zeros(tensor.size, array.dtype)
        full[self.masks[tensor.name]] = array
        return full.reshape(tensor.shape)

    def _flat(self, layout: Layout) -> Mask:
        return np.concatenate([np.zeros(0, np.bool_), *(self.mask(tensor) for tensor in layout.lossy)])


ALL = Live({})  # of a model in which nothing is dead


def prunable(layout: Layout) -> tuple[Tensor, ...]:
    """Return the tensors that may have dead weights."""
    return tuple(tensor for tensor in layout.lossy if len(tensor.shape) > 1)


def encode_change(new: Live, base: Arrays | None, layout: Layout) -> bytes:
    """Return what leads from the live weights of `base`, all of them if it is None, to `new`; empty if nothing does.

    A small weight dies sooner than a large one, so marks are coded by the magnitude that each weight has in `base`.
    """
    old = ALL if base is None else Live.of(base, layout)
    if new.same(old):
        return b""
    masks = [new.mask(tensor) for tensor in prunable(layout)]
    return bitmask_coder.encode(np.concatenate([np.zeros(0, np.bool_), *masks]), _classes(base, layout))


def decode_change(data: bytes, base: Arrays | None, layout: Layout) -> Live:
    """Return the live weights that `encode_change` led to; raise FrameError if `data` leads nowhere."""
    if not data:
        return ALL if base is None else Live.of(base, layout)
    reader = Reader(data)
    found = bitmask_coder.decode(reader, _classes(base, layout))
    reader.end()
    masks: dict[str, Mask] = {}
    at = 0
    for tensor in prunable(layout):
        mask, at = found[at : at + tensor.size], at + tensor.size
        if not mask.all():
            masks[tensor.name] = mask
    return Live(masks)


def _dead(array: NDArray[np.generic]) -> Mask:
    flat = np.asarray(array).reshape(-1)
    return np.asarray((flat == 0) & np.signbit(flat))


def _classes(base: Arrays | None, layout: Layout) -> NDArray[np.uint8]:
    """Return the class of each weight that may be dead, (n,), by what both ends know of it."""
    classes = [np.zeros(0, np.uint8)]
    for number, tensor in enumerate(prunable(layout)):
        own = np.zeros(tensor.size, np.uint8)
        if base is not None:
            values = np.asarray(base[tensor.name]).reshape(-1)
            live = np.flatnonzero(~_dead(values))
            # Comparisons and ties by place: the same ranks on every machine.
            ranks = np.argsort(np.argsort(np.abs(values[live]), kind="stable"), kind="stable")
            own[:] = _DEAD
            own[live] = ranks * _RANKS // max(1, live.size)
        classes.append(own + np.uint8(min(number, _GROUPS - 1) * (_RANKS + 1)))
    return np.concatenate(classes)
