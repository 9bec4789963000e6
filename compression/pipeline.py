"""A chain of stages as a codec."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpress.common.errors import FrameError, UpdateError
from fedpress.compression.codec import Codec, Stage, State, StatefulStage, Streams, no_target
from fedpress.compression.frame import read_frame, write_frame
from fedpress.compression.layout import Layout, Update
from fedpress.compression.stages.lossless.ans import SIDE, Ans
from fedpress.compression.stages.quantize.step_search import Stepped
from fedpress.compression.streams import take

_ATTEMPTS = 5  # at a frame of so many bytes


@dataclass(frozen=True)
class Pipeline(Codec):
    """Stages one after another. State: what its stateful stages remember, each key led by the stage's number.

    `text` is the spec that names the whole codec, wrappers included: the frame carries it, and a frame that carries
    another is refused.
    """

    stages: tuple[Stage, ...]
    text: str = field(kw_only=True)

    def __str__(self) -> str:
        return self.text

    @property
    def stateful(self) -> bool:
        return any(isinstance(stage, StatefulStage) for stage in self.stages)

    def init(self, layout: Layout) -> State:
        return {
            f"{number}.{key}": array
            for number, stage in enumerate(self.stages)
            if isinstance(stage, StatefulStage)
            for key, array in stage.init(layout).items()
        }

    def encode(
        self,
        update: Update,
        state: State,
        rng: np.random.Generator,
        *,
        side: Update | None = None,
        base: bytes = b"",
    ) -> tuple[bytes, State]:
        layout = Layout.of(update)
        values, exact = layout.flatten(update)
        frame, _, after = self.press(values, exact, layout, state, rng, base=base, side=side, back=False)
        return frame, after

    def press(
        self,
        values: NDArray[np.float32],
        exact: NDArray[np.uint8],
        layout: Layout,
        state: State,
        rng: np.random.Generator,
        *,
        base: bytes,
        side: Update | None,
        back: bool = True,
    ) -> tuple[bytes, NDArray[np.float32], State]:
        """Return the frame of a flattened update, the values, float32 (n,), that it decodes to, and the state after.

        Without `back` the values are not decoded.
        """
        streams: Streams = {"values": values}
        if layout.exact_nbytes:
            streams["exact"] = exact
        stages, budgets = (
            self.stages,
            [stage.bytes for stage in self.stages if isinstance(stage, Stepped) and stage.bytes],
        )
        for _ in range(_ATTEMPTS):
            frame, lossy, after = self._press(stages, streams, layout, state, rng, base, side)
            over = len(frame) - min(budgets, default=len(frame))
            if over <= 0:
                return frame, self._undo(lossy, layout) if back else values, after
            stages = tuple(
                replace(stage, bytes=max(1, (stage.bytes or 0) - over))
                if isinstance(stage, Stepped) and stage.bytes
                else stage
                for stage in stages
            )
        raise UpdateError(f"{min(budgets)} bytes are too few for this update: {len(frame)} is the least that was found")

    def _press(
        self,
        stages: tuple[Stage, ...],
        streams: Streams,
        layout: Layout,
        state: State,
        rng: np.random.Generator,
        base: bytes,
        side: Update | None,
    ) -> tuple[bytes, Streams, State]:
        """Return the frame, the streams that the last lossy stage left, and the state after."""
        lossy = [stage for stage in stages if not stage.lossless]
        after: dict[str, NDArray[Any]] = {}
        for number, stage in enumerate(lossy):
            if isinstance(stage, StatefulStage):
                lead = f"{number}."
                memory = {key.removeprefix(lead): array for key, array in state.items() if key.startswith(lead)}
                streams, memory_after = stage.advance(streams, memory, layout, rng)
                after |= {lead + key: array for key, array in memory_after.items()}
            else:
                streams = stage.encode(streams, layout, rng)
        coded = streams
        for stage in stages[len(lossy) :]:
            known = {SIDE: layout.flatten(side)[0]} if side is not None and isinstance(stage, Ans) else {}
            coded = stage.encode({**coded, **known}, layout, rng)
        return write_frame(self.text, layout.digest, base, coded), streams, after

    def _undo(self, streams: Streams, layout: Layout) -> NDArray[np.float32]:
        """Return the values, float32 (n,), that the lossy stages make of what the last of them left."""
        for stage in reversed(self.stages):
            if not stage.lossless:
                streams = stage.decode(streams, layout)
        return np.asarray(streams["values"], np.float32)

    def decode(self, frame: bytes, layout: Layout, *, side: Update | None = None, base: bytes | None = None) -> Update:
        read = read_frame(frame)
        if read.spec != self.text:
            raise FrameError(f"a frame of the codec {read.spec!r}, {self.text!r} was asked for")
        if read.layout != layout.digest:
            raise FrameError("a frame of another layout")
        if base is not None and read.base != base:
            raise FrameError(f"a frame that starts from the model {read.base.hex()}, not from {base.hex()}")
        streams = read.streams
        for stage in reversed(self.stages):
            known = {SIDE: layout.flatten(side)[0]} if side is not None and isinstance(stage, Ans) else {}
            streams = stage.decode({**streams, **known}, layout)
        values = take(streams, "values", np.float32, layout.size)
        exact = take(streams, "exact", np.uint8, layout.exact_nbytes) if layout.exact_nbytes else np.zeros(0, np.uint8)
        if len(streams) > (2 if layout.exact_nbytes else 1):
            raise FrameError(f"streams that belong to nothing: {', '.join(streams)}")
        if not np.isfinite(values).all():
            raise FrameError("a value is not finite")
        return layout.unflatten(values, exact)

    def pinned(self, frame: bytes, layout: Layout, coarser: float = 1.0) -> "Pipeline":
        streams: Streams = read_frame(frame).streams
        for number in reversed(range(len(self.stages))):
            stage = self.stages[number]
            if isinstance(stage, Stepped):
                step = float(f"{coarser * float(streams['step'][0]):.6g}")
                return self._with_target(number, step=step)
            streams = stage.decode(streams, layout)
        return self

    def aimed(self, **target: float | int) -> "Pipeline":
        for number, stage in enumerate(self.stages):
            if isinstance(stage, Stepped):
                return self._with_target(number, **target)
        raise no_target(self)

    def _with_target(self, number: int, **target: float | int) -> "Pipeline":
        stages: list[Any] = list(self.stages)
        parts = self.text.split(" | ")
        lead = len(parts) - len(stages)  # a wrapper stands before the stages
        ((key, value),) = target.items()
        unset: dict[str, Any] = dict.fromkeys(("step", "nmse", "bits", "bytes"))
        stages[number] = replace(stages[number], **{**unset, key: value})
        name = parts[lead + number].partition("(")[0]
        parts[lead + number] = f"{name}({key}={value!r})"
        return replace(self, stages=tuple(stages), text=" | ".join(parts))

    def lost(self, before: State, update: Update) -> State:
        return before
