"""Groups of neighbouring classes that share a table, chosen for the fewest bits, tables included."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fedpress.common.errors import FrameError
from fedpress.compression.entropy.context_classes import CLASSES, entropy_bits
from fedpress.compression.frame import ByteReader

NO_GROUP = 255  # of cells of class 0
_TABLE_BITS = 60  # approximate bits of a group's tables


@dataclass(frozen=True)
class ContextGroups:
    """A partition of the classes into groups of neighbours."""

    last: NDArray[np.uint8]  # (g,) the last class of each group, ascending

    @classmethod
    def fit(cls, counts: NDArray[np.int64]) -> "tuple[ContextGroups, list[NDArray[np.int64]]]":
        """Return the groups of the fewest bits, by dynamic programming, and the counts of each.

        Parameters
        ----------
        counts : ndarray of int64
            Of each token in each class, (CLASSES, tokens).
        """
        used = np.flatnonzero(counts.any(axis=1))
        sums = np.concatenate([np.zeros((1, counts.shape[1]), np.int64), np.cumsum(counts[used], axis=0)])
        best: list[tuple[float, int]] = [(0.0, 0)]  # bits of the first classes, and start of their last group
        for end in range(1, used.size + 1):
            cost = entropy_bits(sums[end] - sums[:end]) + _TABLE_BITS
            best.append(min((best[start][0] + float(cost[start]), start) for start in range(end)))
        edges = [used.size]
        while edges[-1]:
            edges.append(best[edges[-1]][1])
        edges.reverse()
        last = np.array([used[end - 1] for end in edges[1:]], np.uint8)
        return cls(last), [sums[end] - sums[start] for start, end in pairwise(edges)]

    def of(self, classes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the group of each cell; `NO_GROUP` for class 0, and for classes after the last group."""
        table = np.searchsorted(self.last, np.arange(CLASSES)).astype(np.uint8)
        table[(table == self.last.size) | (np.arange(CLASSES) == 0)] = NO_GROUP
        return table[classes]

    def write(self, out: bytearray) -> None:
        """Append the groups."""
        out.append(self.last.size)
        out += self.last.tobytes()

    @classmethod
    def read(cls, reader: ByteReader) -> "ContextGroups":
        """Return the groups that `write` wrote; raise FrameError if the data is not valid."""
        last = np.frombuffer(reader.take(reader.byte()), np.uint8)
        if (np.diff(last.astype(int), prepend=0) < 1).any() or (last >= CLASSES).any():
            raise FrameError("last classes of groups must ascend")
        return cls(last)
