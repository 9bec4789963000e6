"""Closer norms for all tensors, as per-tensor steps have them, Alistarh et al. 2017, https://arxiv.org/abs/1610.02132."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedpress.common.errors import SpecError
from fedpress.compression.codec import Stage, Streams
from fedpress.compression.layout import Layout
from fedpress.compression.streams import FLOAT32_MAX, take, tensor_bounds, tensor_parts, values_of, without


@dataclass(frozen=True)
class Even(Stage):
    """Divide each tensor by a power of its norm: `even(power=0.5)`.

    A quantizer with one step for all tensors gives large tensors nearly all of its bits. After this stage the error of
    a tensor grows with its norm: with a power of 1 the quantizer leaves each tensor the same relative error, with 0
    the same absolute error. Divisors are rounded to powers of two, so decoding is exact; each takes one byte.

    Parameters
    ----------
    power : float
        Exponent of the norm, above 0 and at most 1.
    """

    power: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.power <= 1:
            raise SpecError(f"even's power must be above 0 and at most 1, got {self.power}")

    def encode(self, streams: Streams, layout: Layout, rng: np.random.Generator) -> Streams:
        values = values_of(streams, "even")
        scaled = values.copy()
        exponents = []
        for part in tensor_parts(scaled, tensor_bounds(streams, layout)):
            exponents.append(self._exponent(part))
            np.ldexp(part, -exponents[-1], out=part)
        return {**streams, "values": scaled, "exponents": np.array(exponents, np.int8)}

    def decode(self, streams: Streams, layout: Layout) -> Streams:
        edges = tensor_bounds(streams, layout)
        values = take(streams, "values", np.float32, int(edges[-1])).copy()
        exponents = take(streams, "exponents", np.int8, len(edges) - 1)
        with np.errstate(over="ignore"):
            for part, exponent in zip(tensor_parts(values, edges), exponents.tolist(), strict=True):
                np.ldexp(part, exponent, out=part)
        np.clip(values, -FLOAT32_MAX, FLOAT32_MAX, out=values)
        return {**without(streams, "exponents"), "values": values}

    def _exponent(self, part: NDArray[np.float32]) -> int:
        """Return the logarithm to base 2, rounded, of the divisor of a tensor."""
        norm = math.sqrt(float(np.square(part, dtype=np.float64).sum()))
        return min(max(round(self.power * math.log2(norm)), -126), 126) if norm else 0
