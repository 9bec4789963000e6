"""The mean of models that are parts of the server's, each element over the parts that cover it."""

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from fedpress.compression import Update
from fedpress.compression.submodels import Slice


class Coverage:
    """The weighted mean of parts, each element over the parts that cover it; elements without a part do not change.

    Elements that all parts cover have the bits of FedAvg's weighted mean.

    Examples
    --------
    >>> mean = Coverage({"w": np.array([1.0, 2.0])}, [1.0])
    >>> mean.add({"w": np.array([5.0])}, 1.0, Slice({"w": "w"}, {"w": (np.array([0]),)}))
    >>> mean.mean()["w"].tolist()
    [5.0, 2.0]
    """

    def __init__(self, whole: Mapping[str, np.ndarray], weights: Iterable[float]) -> None:
        self._whole = whole
        self._total = sum(weights)
        self._sums: Update = {}
        self._shares: dict[str, NDArray[np.float64]] = {}  # by element, of the parts that cover it
        self._covers: dict[str, NDArray[np.int64]] = {}  # number of these parts
        self._count = 0

    def add(self, part: Mapping[str, np.ndarray], weight: float, where: Slice) -> None:
        """Add a part, whose elements are at `where`, with this weight."""
        share = weight / self._total
        self._count += 1
        for name, of in where.names.items():
            if of not in self._sums:
                shape = self._whole[of].shape
                self._sums[of] = np.zeros(shape, np.result_type(part[name].dtype, np.float32))
                self._shares[of], self._covers[of] = np.zeros(shape), np.zeros(shape, np.int64)
            at = where.at.get(name, ...)
            self._sums[of][at] += part[name] * share
            self._shares[of][at] += share
            self._covers[of][at] += 1

    def mean(self) -> Update:
        """Return the mean, as a whole model."""
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
