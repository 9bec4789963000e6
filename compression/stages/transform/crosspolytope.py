"""The cross-polytope code: one signed coordinate a block, Gandikota et al. 2021, https://arxiv.org/abs/1911.07971.

The vertices are chosen after a random rotation, and scaled without bias, as in EDEN (https://arxiv.org/abs/2108.08842).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from fedpress.common.errors import FrameError, SpecError
from fedpress.compression.codec import Stage, Streams
from fedpress.compression.entropy import bit_io
from fedpress.compression.frame import ByteReader
from fedpress.compression.kernels.uniform_rotation import gain, padded_size, rotate, rotate_back
from fedpress.compression.layout import Layout
from fedpress.compression.streams import FLOAT32_MAX, take, tensor_bounds, tensor_parts, values_of, without

LEAST_NOISE = 0.6  # of one block for each value: pi / 2 - 1, and a little for tensors' different sizes
_ZERO = 255  # code of the scale of a tensor that is zero
# 2 ** (-i / 8), as literals: the same bits on every machine.
_EIGHTHS = np.array(
    [1.0, 0.917004, 0.8408964, 0.7711054, 0.70710677, 0.64841974, 0.59460354, 0.5452539], dtype=np.float32
)
_CHUNK = 1 << 16  # rotated values that are searched at once


@dataclass(frozen=True)
class CrossPolytope(Stage):
    """Send the largest coordinate of each block after a rotation, without bias: `crosspolytope(density)`.

    A tensor of n values is rotated as a whole, at random, and cut into about ``density * sqrt(n)`` blocks. Of each
    block the position of the largest magnitude is sent, and its sign: log2(d) + 1 bits for the d values of a block. All
    blocks of a tensor have one scale, ||x||^2 over the sum of those magnitudes, which makes the estimate unbiased over
    the rotations. Its squared error over ||x||^2 is nearly ``n / (k m^2) - 1`` with k blocks, where m is the mean
    of the largest of d standard normal magnitudes. The number of blocks grows with sqrt(n), since that makes the sum of
    the tensors' relative errors least for the number of blocks.

    Parameters
    ----------
    density : float or None
        Blocks for each sqrt(n) values, above 0 and at most 4096.
    noise : float, optional
        The expected squared error over the update's squared norm, at least 0.6, in place of a density.
    """

    density: float | None = None
    noise: float | None = field(default=None, kw_only=True)

    targets: ClassVar[tuple[str, ...]] = ("noise",)

    def __post_init__(self) -> None:
        if (self.density is None) == (self.noise is None):
            raise SpecError("crosspolytope must be given a density or a noise, one of them")
        if self.density is not None and not 0 < self.density <= 4096:
            raise SpecError(f"crosspolytope's density must be above 0 and at most 4096, got {self.density}")
        if self.noise is not None and not LEAST_NOISE <= self.noise < math.inf:
            raise SpecError(f"crosspolytope's noise must be at least {LEAST_NOISE} and finite, got {self.noise}")

    def with_target(self, **target: float | int) -> Self:
        if target.keys() != {"noise"}:
            return super().with_target(**target)
        return type(self)(noise=float(target["noise"]))

    def encode(self, streams: Streams, layout: Layout, rng: np.random.Generator) -> Streams:
        values = values_of(streams, "crosspolytope")
        parts = list(tensor_parts(values, tensor_bounds(streams, layout)))
        head, density = bytearray(), self.density
        if density is None:
            step = _least_step(parts, self.noise or 0.0)
            head.append(step)
            density = _density(step)
        seed = int(rng.integers(1 << 32))
        head += seed.to_bytes(4, "little")
        scale, symbols = np.zeros(len(parts)), []
        for number, part in enumerate(parts):
            scale[number], found = _vertices(part, _Blocks.of(part.size, density), seed + (number << 32))
            symbols.append(found)
        largest = np.float32(min(scale.max(initial=0), FLOAT32_MAX))
        top = np.float32(min(np.nextafter(largest, np.float32(np.inf)), FLOAT32_MAX))  # at least the largest scale
        codes = _scale_codes(scale, top, rng)
        head += np.array(top, "<f4").tobytes() + codes.tobytes()
        writer = bit_io.BitWriter()
        for part, code, found in zip(parts, codes, symbols, strict=True):
            if code != _ZERO:
                for numbers, width in _Blocks.of(part.size, density).join(found):
                    writer.put(numbers, width)
        return {**without(streams, "values"), "vertices": np.frombuffer(bytes(head) + writer.end(), np.uint8)}

    def decode(self, streams: Streams, layout: Layout) -> Streams:
        edges = tensor_bounds(streams, layout)
        values = np.zeros(int(edges[-1]), np.float32)
        reader = ByteReader(take(streams, "vertices", np.uint8).tobytes())
        density = _density(reader.byte()) if self.density is None else self.density
        seed = int.from_bytes(reader.take(4), "little")
        top = np.frombuffer(reader.take(4), "<f4")[0]
        if not 0 <= top < np.inf:
            raise FrameError(f"the largest scale must be at least 0 and finite, got {top}")
        codes = np.frombuffer(reader.take(len(edges) - 1), np.uint8)
        bits = bit_io.BitReader(bytes(reader.rest()))
        for number, (part, code) in enumerate(zip(tensor_parts(values, edges), codes, strict=True)):
            if code == _ZERO or not part.size:
                continue
            cut = _Blocks.of(part.size, density)
            rotated = cut.read(bits)
            scale = np.ldexp(_EIGHTHS[code % 8] * top, -(int(code) // 8))
            with np.errstate(over="ignore", under="ignore"):
                np.multiply(rotate_back(rotated, seed + (number << 32), part.size), scale, out=part)
            np.clip(part, -FLOAT32_MAX, FLOAT32_MAX, out=part)
        bits.end()
        return {**without(streams, "vertices"), "values": values}


@dataclass(frozen=True)
class _Blocks:
    """How the rotated values of a tensor are cut."""

    padded: int  # number of rotated values
    size: int  # values in a block; fewer in the last one
    count: int  # number of blocks

    @classmethod
    def of(cls, values: int, density: float) -> "_Blocks":
        padded = padded_size(values)
        wanted = min(max(1, round(density * math.sqrt(values))), padded)
        size = -(-padded // wanted)
        return cls(padded, size, -(-padded // size))

    def join(self, symbols: NDArray[np.uint32]) -> Iterator[tuple[NDArray[np.uint64], int]]:
        """Yield numbers of several symbols each, and the width of the numbers in bits."""
        base = 2 * self.size
        group = _group(base)
        whole = symbols.size // group * group
        step = group * max(1, _CHUNK // group)
        chunks = [symbols[at : min(at + step, whole)].reshape(-1, group) for at in range(0, whole, step)]
        for rows in (*chunks, symbols[whole:].reshape(1, -1)):
            if rows.size:
                weights = np.array([base**place for place in range(rows.shape[1])], np.uint64)
                yield (rows * weights).sum(1, dtype=np.uint64), _width(base, rows.shape[1])

    def read(self, bits: bit_io.BitReader) -> NDArray[np.float32]:
        """Return the rotated values, 1 or -1 at the vertices and 0 elsewhere, (padded,)."""
        rotated = np.zeros(self.padded, np.float32)
        base, first = 2 * self.size, 0
        group = _group(base)
        most = group * max(1, _CHUNK // group)
        while first < self.count:
            places = min(group, self.count - first)
            numbers = np.zeros(min(most, self.count - first) // places, np.uint64)
            bits.fixed(numbers, _width(base, places))
            if int(numbers.max()) >= base**places:
                raise FrameError(f"a number of {places} vertices must be below {base**places}, got {numbers.max()}")
            for place in range(places):
                numbers, symbol = np.divmod(numbers, np.uint64(base))
                block = np.arange(first + place, first + numbers.size * places, places)
                at = block * self.size + (symbol >> np.uint64(1)).astype(np.int64)
                if int(at[-1]) >= self.padded:
                    raise FrameError(f"positions of vertices must be below {self.padded}, got {at[-1]}")
                rotated[at] = 1 - 2 * (symbol & np.uint64(1)).astype(np.float32)
            first += numbers.size * places
        return rotated


def expected_noise(values: int, density: float) -> float:
    """Return the expected squared error of a tensor over its squared norm.

    Parameters
    ----------
    values : int
        Number of values of the tensor.
    density : float
        Blocks for each sqrt(values).

    Returns
    -------
    float
        Of a uniformly random rotation, in the limit of many values.

    Examples
    --------
    >>> round(expected_noise(10_000, 1.0), 1)
    12.2
    """
    cut = _Blocks.of(values, density)
    last = cut.padded - (cut.count - 1) * cut.size
    along = (cut.count - 1) * _mean_largest(cut.size) + _mean_largest(last)
    return (cut.padded * cut.count / along**2 - 1) * max(values - 1, 0) / (cut.padded - 1)


def _least_step(parts: list[NDArray[np.float32]], noise: float) -> int:
    """Return the least step of the density whose expected noise is at most `noise`."""
    energies = [_energy(part) for part in parts]
    total = sum(energies)
    low, high = 0, 255
    while low < high:
        middle = (low + high) // 2
        density = _density(middle)
        shares = ((e / total, part.size) for e, part in zip(energies, parts, strict=True) if e)
        if sum(share * expected_noise(size, density) for share, size in shares) <= noise:
            high = middle
        else:
            low = middle + 1
    return low


def _energy(values: NDArray[np.float32]) -> float:
    """Return the squared norm, in float64, which holds that of all finite values."""
    chunks = (values[at : at + _CHUNK].astype(np.float64) for at in range(0, values.size, _CHUNK))
    return sum(float(np.dot(chunk, chunk)) for chunk in chunks)


@lru_cache(maxsize=4096)
def _mean_largest(count: int) -> float:
    """Return the mean of the largest of `count` standard normal magnitudes."""
    points = np.linspace(0, 10, 2001)
    below = np.array([math.erf(point / math.sqrt(2)) for point in points]) ** count
    return float(np.trapezoid(1 - below, points))


def _density(step: int) -> float:
    """Return the density of a step: eight of them double it, and 96 is 1."""
    octave, eighths = divmod(step - 96, 8)
    return math.ldexp(float(_EIGHTHS[-eighths % 8]), octave + (eighths > 0))


@lru_cache(maxsize=4096)
def _group(base: int) -> int:
    """Return how many symbols below `base` one number of at most 64 bits holds best."""
    most = max(1, 64 // max(1, (base - 1).bit_length()))
    while base ** (most + 1) <= 1 << 64:
        most += 1
    return min(range(1, most + 1), key=lambda places: (_width(base, places) / places, places))


def _width(base: int, places: int) -> int:
    return int(base**places - 1).bit_length()


def _vertices(part: NDArray[np.float32], cut: _Blocks, seed: int) -> tuple[float, NDArray[np.uint32]]:
    """Return the scale of a tensor, and for each block twice the position of its largest magnitude, plus its sign."""
    largest = max(float(part.max(initial=0)), -float(part.min(initial=0)))
    if not largest:
        return 0.0, np.zeros(0, np.uint32)
    unit = math.ldexp(1, min(max(-math.frexp(largest)[1], -126), 126))  # a float32
    rotated = rotate(part, seed, unit)
    symbols = np.empty(cut.count, np.uint32)
    along = energy = 0.0
    blocks = min(cut.count, max(1, _CHUNK // cut.size))
    magnitudes = np.zeros((blocks, cut.size), np.float32)
    for first in range(0, cut.count, blocks):
        chunk = rotated[first * cut.size : (first + blocks) * cut.size]
        energy += float(np.dot(chunk, chunk))
        rows = magnitudes[: min(blocks, cut.count - first)]
        rows.reshape(-1)[chunk.size :] = 0  # the last block may be shorter
        np.abs(chunk, out=rows.reshape(-1)[: chunk.size])
        at = rows.argmax(1)
        extreme = chunk[np.arange(at.size) * cut.size + at]
        along += float(np.abs(extreme).sum(dtype=np.float64))
        symbols[first : first + at.size] = 2 * at + (extreme < 0)
    return energy / gain(cut.padded) / along / unit, symbols


def _scale_codes(scale: NDArray[np.float64], top: np.float32, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return a code for each scale, rounded at random to one of its neighbours without bias, uint8 (t,)."""
    levels = np.ldexp(_EIGHTHS[np.arange(_ZERO) % 8] * top, -(np.arange(_ZERO) // 8)).astype(np.float64)
    levels = np.append(levels, 0.0)
    below = np.clip(np.searchsorted(-levels, -scale, side="left"), 1, _ZERO)  # the first level that is not above
    upper, lower = levels[below - 1], levels[below]
    gap = upper - lower
    share = np.divide(scale - lower, gap, out=np.zeros_like(scale), where=gap > 0)
    return np.where(scale > 0, below - (rng.random(scale.size) < share), _ZERO).astype(np.uint8)
