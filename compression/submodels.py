"""Parts of a model that consist of some elements of some of its tensors."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fedpress.compression import Update

Index = tuple[NDArray[np.int64] | None, ...]  # for each of the leading axes the selected indices; None for all


@dataclass(frozen=True, eq=False)
class Slice:
    """The elements of a model that a smaller model holds.

    Parameters
    ----------
    names : mapping of str to str
        For each tensor of the part, in its order, the name of the whole's.
    indices : mapping of str to Index
        The selected elements of tensors of which not all are selected.

    Examples
    --------
    >>> part = Slice({"w": "w"}, {"w": (np.array([0, 2]),)})
    >>> part.take({"w": np.array([1.0, 2.0, 3.0])})["w"].tolist()
    [1.0, 3.0]
    """

    names: Mapping[str, str]
    indices: Mapping[str, Index]

    @cached_property
    def at(self) -> dict[str, tuple[NDArray[np.int64] | slice, ...]]:
        return {name: _open(index) for name, index in self.indices.items()}

    def take(self, whole: Mapping[str, np.ndarray]) -> Update:
        """Return the part of `whole`; tensors of which not all elements are selected are copied."""
        return {name: whole[of][self.at[name]] if name in self.at else whole[of] for name, of in self.names.items()}

    def put(self, part: Mapping[str, np.ndarray], whole: Mapping[str, np.ndarray]) -> Update:
        """Return `whole` with the elements of `part` in place of the selected ones."""
        result = dict(whole)
        for name, of in self.names.items():
            result[of] = np.array(whole[of])
            result[of][self.at.get(name, ...)] = part[name]
        return result


def _open(index: Index) -> tuple[NDArray[np.int64] | slice, ...]:
    """Return an index for numpy that selects on several axes independently."""
    selected = [axis for axis in index if axis is not None]
    if len(selected) < 2:
        return tuple(slice(None) if axis is None else axis for axis in index)
    if len(selected) != len(index):
        raise ValueError("axes with selected indices must be the leading ones")
    return tuple(np.ix_(*selected))
