"""Uniform quantiser with a dead zone and fitted reconstruction points, Sullivan 1996, https://doi.org/10.1109/18.532878."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedpress.common.errors import FrameError
from fedpress.compression.codec import Streams
from fedpress.compression.kernels import scalar_quantizer
from fedpress.compression.kernels.regula_falsi import find
from fedpress.compression.layout import Layout
from fedpress.compression.stages.quantize.step_search import StepQuantizer, StepTrial, Trials
from fedpress.compression.streams import take, without

_ROUNDING = 1 / 3  # magnitudes are rounded up from 2/3 of a step on: the dead zone is 4/3 of a step wide
_SAMPLE = 1 << 16  # values of the first search for a step


@dataclass(frozen=True)
class DeadZone(StepQuantizer):
    """Quantize with one step for the whole update and a wider zero bin: `deadzone(step | nmse | bits | bytes)`."""

    def trials(self, values: NDArray[np.float32], streams: Streams, layout: Layout, rng: np.random.Generator) -> Trials:
        return lambda step: _try(values, step)

    def guess(self, values: NDArray[np.float32], nmse: float) -> float:
        sample = values[:: max(1, values.size // _SAMPLE)]
        sample = sample if sample.any() else values
        energy = float(np.square(sample, dtype=np.float64).sum())
        rough = (12 * nmse * energy / sample.size) ** 0.5
        # The step for a sample is the first trial of the search with all values.
        return (
            find(
                lambda step: _try(sample, scalar_quantizer.within_float32(step)).error / energy, nmse, rough, slope=1.5
            )
            or rough
        )

    def decode(self, streams: Streams, layout: Layout) -> Streams:
        return {**without(streams, "symbols", "step", "point"), "values": decode_scalar(streams)}


def _try(values: NDArray[np.float32], step: float) -> StepTrial:
    streams, error = encode_scalar(values, step, _ROUNDING)
    return StepTrial(streams, error)


def encode_scalar(values: NDArray[np.float32], step: float, rounding: float) -> tuple[Streams, float]:
    """Return `values` as "symbols", "step" and "point", and their squared error."""
    symbols = scalar_quantizer.quantise(values, step, rounding)
    point = scalar_quantizer.fit(values, symbols, step)
    streams = {"symbols": symbols, "step": np.array([step], np.float32), "point": point}
    return streams, scalar_quantizer.error(values, symbols, step, point)


def decode_scalar(streams: Streams) -> NDArray[np.float32]:
    """Return the quantised values that `encode_scalar` encoded; raise FrameError if the streams are not valid."""
    symbols = streams.get("symbols")
    if symbols is None or symbols.dtype not in (np.int8, np.int16, np.int32):
        raise FrameError("stream 'symbols' of int8, int16 or int32 is missing")
    (step,) = take(streams, "step", np.float32, 1)
    point = take(streams, "point", np.int8, scalar_quantizer.CLASSES)
    if not (np.isfinite(step) and step > 0):
        raise FrameError(f"a step must be above 0 and finite, got {step}")
    if symbols.size and max(-int(symbols.min()), int(symbols.max())) > scalar_quantizer.LARGEST:
        raise FrameError(f"symbols must be at most {scalar_quantizer.LARGEST}")
    return scalar_quantizer.reconstruct(symbols, step, point)
