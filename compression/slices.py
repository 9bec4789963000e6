"""A part of a model: which elements of which tensors it takes, and how parts are averaged back into the whole."""

from collections.abc import Iterable, Mapping
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
    def _at(self) -> dict[str, tuple[NDArray[np.int64] | slice, ...]]:
        return {name: _open(index) for name, index in self.indices.items()}

    def take(self, whole: Mapping[str, np.ndarray]) -> Update:
        """Return the part of `whole`, copied where it is not all of a tensor."""
        return {
            name: whole[known][self._at[name]] if name in self._at else whole[known]
            for name, known in self.names.items()
        }

    def put(self, part: Mapping[str, np.ndarray], whole: Mapping[str, np.ndarray]) -> Update:
        """Return `whole` with the elements that `part` covers replaced by its."""
        result = dict(whole)
        for name, known in self.names.items():
            result[known] = np.array(whole[known])
            result[known][self._at.get(name, ...)] = part[name]
        return result


class Coverage:
    """A mean of parts, each element over the parts that cover it, weighted; what nobody covers stays as it is.

    Elements that all parts cover have the bits of the plain weighted mean that FedAvg takes.
    """

    def __init__(self, whole: Mapping[str, np.ndarray], weights: Iterable[float]) -> None:
        self._whole = whole
        self._total = sum(weights)
        self._sums: Update = {}
        self._shares: dict[str, NDArray[np.float64]] = {}  # of the weight, by element: what covers it
        self._covers: dict[str, NDArray[np.int64]] = {}  # how many parts do
        self._count = 0

    def add(self, part: Mapping[str, np.ndarray], weight: float, where: Slice) -> None:
        """Add a part of this weight."""
        share = weight / self._total
        self._count += 1
        for name, known in where.names.items():
            if known not in self._sums:
                shape = self._whole[known].shape
                self._sums[known] = np.zeros(shape, np.result_type(part[name].dtype, np.float32))
                self._shares[known], self._covers[known] = np.zeros(shape), np.zeros(shape, np.int64)
            at = where._at.get(name, ...)
            self._sums[known][at] += part[name] * share
            self._shares[known][at] += share
            self._covers[known][at] += 1

    def mean(self) -> Update:
        """Return the whole that the parts make."""
        result: Update = {}
        for name, old in self._whole.items():
            if name not in self._sums:
                result[name] = old
                continue
            sums, covers = self._sums[name], self._covers[name]
            scaled = np.divide(sums, self._shares[name], out=np.zeros(sums.shape), where=covers > 0)
            mixed = np.where(covers == self._count, sums, scaled)
            result[name] = np.where(covers > 0, mixed, old).astype(sums.dtype)
        return result


def _open(index: Index) -> tuple[NDArray[np.int64] | slice, ...]:
    """Return an index as numpy takes it: two axes that are picked from are picked from crosswise."""
    picked = [axis for axis in index if axis is not None]
    if len(picked) < 2:
        return tuple(slice(None) if axis is None else axis for axis in index)
    if len(picked) != len(index):
        raise ValueError("axes that are picked from stand together, at the front")
    return tuple(np.ix_(*picked))
