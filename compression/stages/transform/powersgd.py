"""PowerSGD, low-rank updates by one warm power iteration, Vogels et al. 2019, https://arxiv.org/abs/1905.13727."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fedpress.common.errors import FrameError, SpecError
from fedpress.compression.codec import State, StatefulStage, Streams
from fedpress.compression.layout import Layout
from fedpress.compression.streams import FLOAT32_MAX, take, whole_update, without

_CHUNK = 1 << 16  # numbers that are summed at once, to stay in the cache


@dataclass(frozen=True)
class PowerSgd(StatefulStage):
    """Approximate each tensor, as a matrix of its first axis by the rest, as P Q^T of rank `rank`: `powersgd(rank)`.

    P is an orthonormal basis of M Q for the Q of the round before (random at first), then Q is M^T P: one step of the
    power iteration per round. A matrix of that rank or less is exact. This is the paper's method for one worker; in
    its data center P and Q are averaged over workers in between.

    Vectors, and matrices for which P and Q would not be smaller, are sent as float32. The paper compresses every
    matrix; its later code leaves out those that would not be halved, and makes only one of P and Q in each round.
    """

    rank: int

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise SpecError(f"powersgd's rank must be at least 1, got {self.rank}")

    def init(self, layout: Layout) -> State:
        return {"q": np.zeros(self._sizes(layout)[1], np.float32)}  # rows of zeros are drawn at random

    def advance(
        self, streams: Streams, state: State, layout: Layout, rng: np.random.Generator
    ) -> tuple[Streams, State]:
        values = whole_update(streams, "powersgd")
        shape = (self._sizes(layout)[1],)
        before = state.get("q")
        if before is None or before.shape != shape:
            before = np.zeros(shape, np.float32)
        nothing, at = np.zeros(0, np.float32), 0
        left, right, rest = [nothing], [nothing], [nothing]
        for part, rows, columns in self._parts(layout):
            if not rows:
                rest.append(values[part])
                continue
            # In float64 nothing overflows. QR spans the same space as the paper's Gram-Schmidt, without its divisions.
            matrix = values[part].reshape(rows, columns).astype(np.float64)
            q = before[at : at + self.rank * columns].reshape(self.rank, columns).astype(np.float64)
            zero = ~q.any(axis=1)
            q[zero] = rng.standard_normal((int(zero.sum()), columns))
            p = np.linalg.qr(matrix @ q.T)[0].T.astype(np.float32)  # (rank, rows)
            left.append(p.ravel())
            right.append(np.clip(p @ matrix, -FLOAT32_MAX, FLOAT32_MAX).astype(np.float32).ravel())
            at += self.rank * columns
        out = {"left": np.concatenate(left), "right": np.concatenate(right), "rest": np.concatenate(rest)}
        return {**without(streams, "values"), **out}, {"q": out["right"]}

    def decode(self, streams: Streams, layout: Layout) -> Streams:
        left_size, right_size, rest_size = self._sizes(layout)
        left = take(streams, "left", np.float32, left_size)
        right = take(streams, "right", np.float32, right_size)
        rest = take(streams, "rest", np.float32, rest_size)
        if not (np.isfinite(left).all() and np.isfinite(right).all()):
            raise FrameError("factors must be finite")
        values = np.zeros(layout.size, np.float32)
        at, row, column = 0, 0, 0
        for part, rows, columns in self._parts(layout):
            if not rows:
                size = part.stop - part.start
                values[part] = rest[at : at + size]
                at += size
                continue
            p = left[row : row + self.rank * rows].reshape(self.rank, rows)
            q = right[column : column + self.rank * columns].reshape(self.rank, columns)
            row, column = row + p.size, column + q.size
            matrix, some = values[part].reshape(rows, columns), max(1, _CHUNK // columns)
            for first in range(0, rows, some):
                total = matrix[first : first + some]
                for k in range(self.rank):
                    # Pair by pair, elementwise: the sums of a matrix product differ between machines.
                    with np.errstate(over="ignore"):
                        product = np.multiply.outer(p[k, first : first + some], q[k])
                        total += np.clip(product, -FLOAT32_MAX, FLOAT32_MAX, out=product)
                    np.clip(total, -FLOAT32_MAX, FLOAT32_MAX, out=total)
        return {**without(streams, "left", "right", "rest"), "values": values}

    def _parts(self, layout: Layout) -> Iterator[tuple[slice, int, int]]:
        """Yield each tensor's slice of the values, its rows and columns; 0 if it is sent as float32."""
        at = 0
        for rows, columns in layout.matrices:
            small = self.rank * (rows + columns) >= rows * columns
            yield slice(at, at + rows * columns), 0 if small else rows, 0 if small else columns
            at += rows * columns

    def _sizes(self, layout: Layout) -> tuple[int, int, int]:
        """Return the number of elements in "left", "right" and "rest"."""
        parts = list(self._parts(layout))
        rest = sum(part.stop - part.start for part, rows, _ in parts if not rows)
        return self.rank * sum(rows for _, rows, _ in parts), self.rank * sum(columns for _, _, columns in parts), rest
