"""Dependent quantisation by rate and distortion, Wang et al. 2020, https://arxiv.org/abs/2008.11420.

The trellis goes back to Marcellin and Fischer 1990, https://doi.org/10.1109/26.46532; ISO/IEC 15938-17 has one too.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedpress.common.errors import FrameError
from fedpress.compression.codec import Streams
from fedpress.compression.entropy import row_column_contexts
from fedpress.compression.entropy.context_classes import CLASSES
from fedpress.compression.kernels import scalar_quantizer, trellis_quantizer
from fedpress.compression.layout import Layout
from fedpress.compression.stages.quantize.deadzone import DeadZone, decode_scalar
from fedpress.compression.stages.quantize.step_search import StepQuantizer, StepTrial, Trials
from fedpress.compression.streams import without

_PRICE = 0.22  # of a bit, in squared steps
_TOP = 15  # magnitudes from here on have one rate
_LARGEST = 1 << 23  # steps, and so symbols; levels then stay below those of `deadzone`


@dataclass(frozen=True)
class Trellis(StepQuantizer):
    """Quantize as `deadzone`, but optimise rate and distortion over a trellis: `trellis(step | nmse | bits | bytes)`.

    The rate is that of `ans` under contexts of rows and columns, with tables of a first pass.
    """

    largest: ClassVar[int] = _LARGEST

    def trials(self, values: NDArray[np.float32], streams: Streams, layout: Layout, rng: np.random.Generator) -> Trials:
        shapes = layout.matrices if values.size == layout.size else ((1, values.size),)
        return lambda step: _try(values, shapes, step)

    def guess(self, values: NDArray[np.float32], nmse: float) -> float:
        return DeadZone(nmse=nmse).guess(values, nmse) * 0.6

    def decode(self, streams: Streams, layout: Layout) -> Streams:
        symbols = streams.get("symbols")
        if symbols is None or symbols.dtype.kind != "i":
            raise FrameError("stream 'symbols' of integers is missing")
        if symbols.size and max(-int(symbols.min()), int(symbols.max())) > _LARGEST:
            raise FrameError(f"symbols must be at most {_LARGEST}")
        values = decode_scalar({**streams, "symbols": trellis_quantizer.levels(symbols)})
        return {**without(streams, "symbols", "step", "point"), "values": values}


def _try(values: NDArray[np.float32], shapes: tuple[tuple[int, int], ...], step: float) -> StepTrial:
    scaled = values / np.float32(step)
    rough = scalar_quantizer.quantise(values, 2 * step, 0.3)
    bits = _bits(rough, shapes)
    symbols = trellis_quantizer.quantise(scaled, _PRICE, bits)
    level = trellis_quantizer.levels(symbols)
    point = scalar_quantizer.fit(values, level, step)
    streams = {"symbols": scalar_quantizer.narrow(symbols), "step": np.array([step], np.float32), "point": point}
    return StepTrial(streams, scalar_quantizer.error(values, level, step, point))


def _bits(rough: NDArray[np.signedinteger], shapes: tuple[tuple[int, int], ...]) -> trellis_quantizer.Bits:
    """Return the bits of each magnitude at each position, by its frequency in positions of the same class."""
    fitted = row_column_contexts.fit(rough, shapes)
    classes = fitted.classes(0, rough.size)
    token = np.minimum(np.abs(rough.astype(np.int32)), _TOP)
    counts = np.bincount(classes * np.int32(_TOP + 1) + token, minlength=CLASSES * (_TOP + 1)).astype(np.float64)
    counts = counts.reshape(CLASSES, _TOP + 1) + 0.05
    table = np.log2(counts.sum(axis=1, keepdims=True) / counts)
    table[:, 1:] += 1  # the sign
    table[0, 1:] = 20  # keeps rows and columns of zeros
    flat = table.astype(np.float32).reshape(-1)
    base = classes.astype(np.int16) * np.int16(_TOP + 1)
    return lambda part, magnitude: flat.take(base[part] + np.minimum(magnitude, _TOP).astype(np.int16))
