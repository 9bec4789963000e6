"""Quantisers with one step for the whole update: given, or found for a target."""

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from fedpress.common.errors import SpecError, UpdateError
from fedpress.compression.codec import Stage, Streams
from fedpress.compression.entropy.context_classes import entropy_bits
from fedpress.compression.kernels import scalar_quantizer
from fedpress.compression.kernels.regula_falsi import find
from fedpress.compression.layout import Layout
from fedpress.compression.stages.lossless.ans import Ans
from fedpress.compression.streams import values_of, without

_HEAD = 150  # about the bytes of a frame before its streams; the pipeline repeats the search if there are more
_MARGIN = 1e-5  # share of a target kept for rounding in float32


@dataclass(frozen=True)
class StepTrial:
    """The result of quantising with one step."""

    streams: Streams
    error: float  # squared, of all values


Trials = Callable[[float], StepTrial]


@dataclass(frozen=True)
class StepQuantizer(Stage):
    """A quantiser with one step for the whole update; exactly one parameter is given.

    Parameters
    ----------
    step : float | None
        The step, in the update's units.
    nmse : float | None
        The step is the largest found for which the squared error is at most this share of the squared norm.
    bits : float | None
        The step is the smallest found for which the symbols' order-zero entropy is at most this, per parameter.
    bytes : int | None
        The step is the smallest found for which the frame, with `ans` as the last stage, has at most these bytes.
    """

    targets: ClassVar[tuple[str, ...]] = ("step", "nmse", "bits", "bytes")

    step: float | None = field(default=None, kw_only=True)
    nmse: float | None = field(default=None, kw_only=True)
    bits: float | None = field(default=None, kw_only=True)
    bytes: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        given = {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}
        if len(given) != 1:
            names = ", ".join(f.name for f in fields(self))
            raise SpecError(f"{self._name} must be given one of {names}, got {', '.join(given) or 'none'}")
        ((name, value),) = given.items()
        most = {"nmse": 1.0, "step": float(np.finfo(np.float32).max)}.get(name, math.inf)
        if not 0 < value < most:
            below = f" and below {most:.3g}" if math.isfinite(most) else ""
            raise SpecError(f"{self._name}'s {name} must be above 0{below}, got {value}")

    @property
    def max_frame_bytes(self) -> int | None:
        return self.bytes

    def with_target(self, **target: float | int) -> Self:
        if len(target) != 1 or not target.keys() <= set(self.targets):
            raise SpecError(f"{self._name} takes one of {', '.join(self.targets)}, got {', '.join(target) or 'none'}")
        unset: dict[str, Any] = dict.fromkeys(self.targets)
        return replace(self, **{**unset, **target})

    @property
    def _name(self) -> str:
        return type(self).__name__.lower()

    @abstractmethod
    def trials(self, values: NDArray[np.float32], streams: Streams, layout: Layout, rng: np.random.Generator) -> Trials:
        """Return a function that quantises `values`, (k,), with a step; `streams` are the other streams."""

    @abstractmethod
    def guess(self, values: NDArray[np.float32], nmse: float) -> float:
        """Return an estimate of the step that gives `nmse`, for `values` that are not all zero."""

    def encode(self, streams: Streams, layout: Layout, rng: np.random.Generator) -> Streams:
        values, others = values_of(streams, self._name), without(streams, "values")
        trials = self.trials(values, others, layout, rng)
        peak = scalar_quantizer.peak_of(values)
        finest = max(peak / scalar_quantizer.LARGEST, float(np.finfo(np.float32).smallest_subnormal))
        if peak == 0:
            return {**others, **trials(1.0).streams}
        if self.step is not None:
            if self.step < finest:
                raise UpdateError(f"step must be at least {finest:.3g} for values of up to {peak:.3g}, got {self.step}")
            return {**others, **trials(float(np.float32(self.step))).streams}
        return {**others, **self._search(values, others, layout, rng, trials, finest)}

    def _search(
        self,
        values: NDArray[np.float32],
        others: Streams,
        layout: Layout,
        rng: np.random.Generator,
        trials: Trials,
        finest: float,
    ) -> Streams:
        energy = sum(
            float(np.square(values[part], dtype=np.float64).sum()) for part in scalar_quantizer.blocks(values.size)
        )
        if self.nmse is not None:
            target, start, slope = self.nmse * (1 - _MARGIN), self.guess(values, self.nmse), 1.4
            unmet = f"nmse must be in reach of float32 for this update, got {self.nmse}"
        else:
            start, slope = self.guess(values, 0.3), -1.0
            target = self.bits * layout.size if self.bits is not None else float((self.bytes or 0) - _HEAD)
            wanted = f"{self.bits} bits a parameter" if self.bits is not None else f"{self.bytes} bytes"
            unmet = f"{wanted} are too few for this update"
        best: tuple[float, Streams] | None = None

        def measure(step: float) -> float:
            nonlocal best
            if (step := float(np.float32(scalar_quantizer.within_float32(step)))) < finest:
                return math.inf
            trial = trials(step)
            if self.nmse is not None:
                measured = trial.error / energy
            elif self.bits is not None:
                measured = entropy(trial.streams)
            else:
                measured = coded(trial.streams, others, layout, rng)
            # Only the best is kept: each is as large as the update.
            if measured <= target and (best is None or measured > best[0]):
                best = measured, trial.streams
            return measured

        if target > 0:
            find(measure, target, start, slope=slope)
        if best is None:
            raise UpdateError(unmet)
        return best[1]


def coded(streams: Streams, others: Streams, layout: Layout, rng: np.random.Generator) -> int:
    """Return the number of bytes to which `ans` encodes all streams."""
    return sum(array.nbytes for array in Ans().encode({**others, **streams}, layout, rng).values())


def entropy(streams: Streams) -> float:
    """Return the sum of the order-zero entropies of all streams of integers, in bits."""
    bits = 0.0
    for array in streams.values():
        if array.dtype.kind in "iu" and array.size:
            low = int(array.min())
            dense = int(array.max()) - low < 1 << 16
            counts = np.bincount(array - np.intp(low)) if dense else np.unique(array, return_counts=True)[1]
            bits += float(entropy_bits(counts))
    return bits
