"""Uniform quantiser with a dead zone and fitted reconstruction points, Sullivan 1996, https://doi.org/10.1109/18.532878."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedpress.compression.codec import Stage, Streams
from fedpress.compression.errors import FrameError, SpecError, UpdateError
from fedpress.compression.layout import Layout
from fedpress.compression.streams import take, values_of, without

_ROUNDING = np.float32(1 / 3)  # magnitudes are rounded up from 2/3 of a step on: the dead zone is 4/3 of a step wide
_CLASSES = 3  # magnitudes 1, 2, and 3 or more have reconstruction points of their own
_GRAIN = np.float32(1 / 128)  # reconstruction points are sent as multiples of this part of a step
_SAMPLE = 1 << 17  # values that a step is first searched on
_LARGEST = 2**24  # symbols up to here are exact in float32


@dataclass(frozen=True)
class DeadZone(Stage):
    """`deadzone(step | nmse | bits)`: one step for the whole update, given, or found for a target.

    `nmse`: the largest step found for which the squared error is at most this part of the update's squared norm.
    `bits`: the smallest step found for which the symbols' order-zero entropy is at most this many bits a parameter.
    """

    step: float | None = field(default=None, kw_only=True)
    nmse: float | None = field(default=None, kw_only=True)
    bits: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        given = {name: value for name, value in vars(self).items() if value is not None}
        if len(given) != 1:
            raise SpecError(f"deadzone takes one of step, nmse, bits, got {', '.join(given) or 'none'}")
        ((name, value),) = given.items()
        if not (np.isfinite(value) and value > 0 and (name != "nmse" or value < 1)):
            raise SpecError(f"deadzone's {name} is above 0{' and below 1' if name == 'nmse' else ''}, got {value}")

    def encode(self, streams: Streams, layout: Layout, rng: np.random.Generator) -> Streams:
        values = values_of(streams, "deadzone")
        step = float(np.float32(self._step(values, layout.size)))
        symbols = _quantise(values, step)
        return {
            **without(streams, "values"),
            "symbols": symbols,
            "step": np.array([step], np.float32),
            "point": _fit(values, symbols, step),
        }

    def decode(self, streams: Streams, layout: Layout) -> Streams:
        symbols = take(streams, "symbols", np.int32)
        (step,) = take(streams, "step", np.float32, 1)
        point = take(streams, "point", np.int8, _CLASSES)
        if symbols.size and max(-int(symbols.min()), int(symbols.max())) > _LARGEST:
            raise FrameError(f"a symbol lies beyond {_LARGEST}")
        with np.errstate(over="ignore"):
            values = _reconstruct(symbols, step, point)
        if not np.isfinite(values).all():
            raise FrameError("a value is not finite")
        return {**without(streams, "symbols", "step", "point"), "values": values}

    def _step(self, values: NDArray[np.float32], size: int) -> float:
        peak = float(np.abs(values).max(initial=0))
        if peak == 0:
            return 1.0
        finest = max(peak / _LARGEST, float(np.finfo(np.float32).smallest_subnormal))
        if self.step is not None:
            return max(self.step, finest)
        sample = values[:: max(1, values.size // _SAMPLE)]
        if self.bits is not None:
            target = self.bits * size / values.size  # bits of the values that a sparsifier kept
            step = _search(lambda s: _entropy(sample, s) > target, finest, 2 * peak)
            while _entropy(values, step) > target and step < 2 * peak:
                step *= 1.02
            return step
        nmse = self.nmse or 0.0
        energy = float(np.square(values, dtype=np.float64).sum())
        allowed = float(np.square(sample, dtype=np.float64).sum()) * nmse
        step = _search(lambda s: _error(sample, s) <= allowed, finest, 2 * peak)
        # The sample only guides: the target is held on all values.
        while _error(values, step) > nmse * energy and step > finest:
            step = max(step / 1.02, finest)
        if _error(values, step) > nmse * energy:
            raise UpdateError(
                f"an nmse of {nmse} is beyond float32 for this update: the least is {_error(values, step) / energy:.2g}"
            )
        return step


def _quantise(values: NDArray[np.float32], step: float) -> NDArray[np.int32]:
    level = np.abs(values) / np.float32(step) + _ROUNDING
    return np.copysign(np.floor(level), values).astype(np.int32)


def _classes(symbols: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return each symbol's class: 0 for zero, then 1, 2, and `_CLASSES` for all larger magnitudes."""
    return np.minimum(np.abs(symbols), _CLASSES)


def _fit(values: NDArray[np.float32], symbols: NDArray[np.int32], step: float) -> NDArray[np.int8]:
    """Return where in their cell each class's values lie on average, int8 (_CLASSES,), in grains of a step."""
    live = np.flatnonzero(symbols)
    magnitude = np.abs(symbols[live])
    classes = np.minimum(magnitude, _CLASSES)
    excess = np.abs(values[live]).astype(np.float64) / step - magnitude
    counts = np.bincount(classes, minlength=_CLASSES + 1)[1:]
    sums = np.bincount(classes, excess, minlength=_CLASSES + 1)[1:]
    return np.rint(sums / np.maximum(counts, 1) / _GRAIN).clip(-127, 127).astype(np.int8)


def _reconstruct(symbols: NDArray[np.int32], step: np.float32, point: NDArray[np.int8]) -> NDArray[np.float32]:
    shift = np.concatenate([[0], point]).astype(np.float32) * _GRAIN
    magnitude = np.abs(symbols).astype(np.float32) + shift[_classes(symbols)]
    return np.where(symbols < 0, -magnitude, magnitude) * step


def _error(values: NDArray[np.float32], step: float) -> float:
    symbols = _quantise(values, step)
    back = _reconstruct(symbols, np.float32(step), _fit(values, symbols, step))
    return float(np.square(values - back, dtype=np.float64).sum())


def _entropy(values: NDArray[np.float32], step: float) -> float:
    """Order-zero entropy of the symbols, bits a value."""
    _, counts = np.unique(_quantise(values, step), return_counts=True)
    share = counts / values.size
    return float(-(share * np.log2(share)).sum())


def _search(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Return about the largest step in [low, high] for which `holds`, which is true below it and false above."""
    for _ in range(18):
        middle = float(np.sqrt(low * high))
        low, high = (middle, high) if holds(middle) else (low, middle)
        if high / low < 1.01:
            break
    return low
