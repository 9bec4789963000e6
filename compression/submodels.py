"""A part of a model: which elements of which tensors it takes, and how parts are averaged back into the whole."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fedpress.compression import Update

Index = tuple[NDArray[np.int64] | None, ...]  # for the leading axes which of their elements; None for all


@dataclass(frozen=True, eq=False)
class Slice:
    """Where a part's tensors lie in the whole.

    `names` has the whole's name of each of the part's tensors, in the part's order; `indices` which elements of it, for
    tensors of which not all are taken.
    """

    names: Mapping[str, str]
    indices: Mapping[str, Index]

    @cached_property
    def at(self) -> dict[str, tuple[NDArray[np.int64] | slice, ...]]:
        return {name: _open(index) for name, index in self.indices.items()}

    def take(self, whole: Mapping[str, np.ndarray]) -> Update:
        """Return the part of `whole`, copied where it is not all of a tensor."""
        return {
            name: whole[known][self.at[name]] if name in self.at else whole[known] for name, known in self.names.items()
        }

    def put(self, part: Mapping[str, np.ndarray], whole: Mapping[str, np.ndarray]) -> Update:
        """Return `whole` with the elements that `part` covers replaced by its."""
        result = dict(whole)
        for name, known in self.names.items():
            result[known] = np.array(whole[known])
            result[known][self.at.get(name, ...)] = part[name]
        return result


def _open(index: Index) -> tuple[NDArray[np.int64] | slice, ...]:
    """Return an index as numpy takes it: two axes that are picked from are picked from crosswise."""
    picked = [axis for axis in index if axis is not None]
    if len(picked) < 2:
        return tuple(slice(None) if axis is None else axis for axis in index)
    if len(picked) != len(index):
        raise ValueError("axes that are picked from stand together, at the front")
    return tuple(np.ix_(*picked))
