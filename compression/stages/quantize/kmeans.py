"""Weight sharing by k-means, Han et al. 2016 (Deep Compression), https://arxiv.org/abs/1510.00149."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedpress.common.errors import FrameError, SpecError
from fedpress.compression.codec import Stage, Streams
from fedpress.compression.kernels.scalar_quantizer import blocks
from fedpress.compression.layout import Layout
from fedpress.compression.streams import take, tensor_bounds, tensor_parts, values_of, without

_ROUNDS = 20  # of Lloyd's algorithm; centroids hardly move after


@dataclass(frozen=True)
class KMeans(Stage):
    """Quantize each tensor to a codebook of at most `k` values: `kmeans(k)`.

    Centroids are initialised evenly spaced from the least value to the largest, as the paper found best. The paper also
    trains the centroids, which is not possible with an update.
    """

    k: int

    def __post_init__(self) -> None:
        if not 2 <= self.k <= 65536:
            raise SpecError(f"kmeans's k must be 2 to 65536, got {self.k}")

    @property
    def _dtype(self) -> type[np.unsignedinteger]:
        return np.uint8 if self.k <= 256 else np.uint16

    def encode(self, streams: Streams, layout: Layout, rng: np.random.Generator) -> Streams:
        values = values_of(streams, "kmeans")
        edges = tensor_bounds(streams, layout)
        symbols = np.zeros(values.size, self._dtype)
        books = [np.zeros(0, np.float32)]
        for part, out in zip(tensor_parts(values, edges), tensor_parts(symbols, edges), strict=True):
            book = centroids(part, self.k)
            for block in blocks(part.size):
                out[block] = np.searchsorted(middles(book), part[block])
            books.append(book)
        sizes = np.array([book.size for book in books[1:]], np.uint32)
        return {**without(streams, "values"), "symbols": symbols, "codebook": np.concatenate(books), "sizes": sizes}

    def decode(self, streams: Streams, layout: Layout) -> Streams:
        edges = tensor_bounds(streams, layout)
        symbols = take(streams, "symbols", self._dtype, int(edges[-1]))
        sizes = take(streams, "sizes", np.uint32, len(layout.lossy))
        if (sizes > self.k).any():
            raise FrameError(f"a codebook must have at most {self.k} values, got {sizes.max()}")
        books = take(streams, "codebook", np.float32, int(sizes.sum(dtype=np.int64)))
        values = np.empty(symbols.size, np.float32)
        shelves = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        for part, out, book in zip(
            tensor_parts(symbols, edges), tensor_parts(values, edges), tensor_parts(books, shelves), strict=True
        ):
            if part.size and int(part.max()) >= book.size:
                raise FrameError(f"symbols of a codebook of {book.size} must be below that, got {part.max()}")
            np.take(book, part, out=out, mode="clip")  # the other modes keep a copy
        return {**without(streams, "symbols", "codebook", "sizes"), "values": values}


def centroids(values: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """Return at most `k` centroids, float32, ascending."""
    if values.size == 0:
        return np.zeros(0, np.float32)
    ordered = np.sort(values)
    new = np.append(True, ordered[1:] != ordered[:-1])
    if np.count_nonzero(new) <= k:
        return np.asarray(ordered[new], np.float32)
    book = np.linspace(float(ordered[0]), float(ordered[-1]), k)
    for _ in range(_ROUNDS):
        ends = np.concatenate([[0], np.searchsorted(ordered, middles(book)), [ordered.size]])
        count = np.diff(ends)
        sums = np.add.reduceat(ordered, np.minimum(ends[:-1], ordered.size - 1), dtype=np.float64)
        mean = sums / np.maximum(count, 1)
        book = np.where(count > 0, mean, book)  # a centroid that is nearest to no value stays
    return np.unique(book.astype(np.float32))


def middles(book: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the boundaries between neighbouring centroids, (k - 1,)."""
    return book[:-1].astype(np.float64) / 2 + book[1:].astype(np.float64) / 2
