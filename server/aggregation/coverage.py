"""The mean of models that are parts of the server's, each element over the parts that cover it."""

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from fedpress.compression import Update
from fedpress.compression.submodels import Slice


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
            at = where.at.get(name, ...)
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
