"""A chain of stages as a codec."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpress.common.errors import FrameError, UpdateError
from fedpress.compression.codec import Codec, Stage, State, Streams, no_target, only_frame_errors
from fedpress.compression.frame import FrameHead, read_frame, write_frame
from fedpress.compression.layout import Layout, Update
from fedpress.compression.streams import SIDE, take

_ATTEMPTS = 5  # to meet a limit of the frame's bytes


@dataclass(frozen=True)
class Pipeline(Codec):
    """Stages one after another.

    Its state is the memory of its stateful stages, each key preceded by the stage's number: ``"0.q"``.

    Parameters
    ----------
    stages : tuple of Stage
        In the order of encoding, lossless ones last.
    text : str
        The spec of the whole codec, wrappers included. Frames carry it, and a frame that carries another is refused.

    Examples
    --------
    >>> import numpy as np
    >>> from fedpress.compression.stages.quantize.fp16 import Fp16
    >>> codec = Pipeline((Fp16(),), text="fp16")
    >>> update = {"x": np.array([1.0, 0.1], np.float32)}
    >>> frame, state = codec.encode(update, {}, np.random.default_rng(0))
    >>> codec.decode(frame, Layout.of(update))["x"].tolist()
    [1.0, 0.0999755859375]
    """

    stages: tuple[Stage, ...]
    text: str = field(kw_only=True)

    def __str__(self) -> str:
        return self.text

    @property
    def stateful(self) -> bool:
        return any(stage.stateful for stage in self.stages)

    def init(self, layout: Layout) -> State:
        return {
            f"{number}.{key}": array
            for number, stage in enumerate(self.stages)
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

    def encode_decoded(self, update: Update, rng: np.random.Generator, *, base: bytes = b"") -> tuple[bytes, Update]:
        layout = Layout.of(update)
        values, exact = layout.flatten(update)
        # Only lossy stages are undone: lossless ones return what they were given.
        frame, back, _ = self.press(values, exact, layout, {}, rng, base=base, side=None)
        with only_frame_errors(self):
            return frame, _update_of({"values": back, "exact": exact}, layout)

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
        """Encode an update that is flattened already, as wrappers do.

        Parameters
        ----------
        values : ndarray of float32, (n,)
            The update's floats.
        exact : ndarray of uint8, (b,)
            The bytes of the tensors that codecs must not approximate.
        layout, state, rng, base, side
            As of `encode`.
        back : bool
            Whether to decode the values as well.

        Returns
        -------
        tuple of (bytes, ndarray of float32 (n,), mapping of str to ndarray)
            The frame; the values that it decodes to, or `values` themselves without `back`; the state after.

        Raises
        ------
        UpdateError
            If the update cannot be sent, or no frame is short enough.
        """
        streams: Streams = {"values": values}
        if layout.exact_nbytes:
            streams["exact"] = exact
        stages = self.stages
        limits = [stage.max_frame_bytes for stage in stages if stage.max_frame_bytes]
        for _ in range(_ATTEMPTS):
            frame, lossy, after = self._press(stages, streams, layout, state, rng, base, side)
            over = len(frame) - min(limits, default=len(frame))
            if over <= 0:
                return frame, self._undo(lossy, layout) if back else values, after
            stages = tuple(
                stage.with_target(bytes=max(1, stage.max_frame_bytes - over)) if stage.max_frame_bytes else stage
                for stage in stages
            )
        raise UpdateError(f"{min(limits)} bytes are too few for this update: {len(frame)} is the least that was found")

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
            lead = f"{number}."
            memory = {key.removeprefix(lead): array for key, array in state.items() if key.startswith(lead)}
            streams, memory_after = stage.advance(streams, memory, layout, rng)
            after |= {lead + key: array for key, array in memory_after.items()}
        coded = streams
        for stage in stages[len(lossy) :]:
            coded = stage.encode(_with_side(coded, stage, side, layout), layout, rng)
        return write_frame(self.text, layout.digest, base, coded), streams, after

    def _undo(self, streams: Streams, layout: Layout) -> NDArray[np.float32]:
        """Return the values, float32 (n,), that the lossy stages make of what the last of them left."""
        with only_frame_errors(self):
            for stage in reversed(self.stages):
                if not stage.lossless:
                    streams = stage.decode(streams, layout)
            return np.asarray(streams["values"], np.float32)

    def decode(self, frame: bytes, layout: Layout, *, side: Update | None = None, base: bytes | None = None) -> Update:
        read = read_frame(frame, FrameHead(self.text, layout.digest, base or b""))
        if read.spec != self.text:
            raise FrameError(f"a frame must be of the codec {self.text!r}, got {read.spec!r}")
        if read.layout != layout.digest:
            raise FrameError("a frame of another layout")
        if base is not None and read.base != base:
            raise FrameError(f"a frame that starts from the model {read.base.hex()}, not from {base.hex()}")
        streams = read.streams
        with only_frame_errors(self):
            for stage in reversed(self.stages):
                streams = stage.decode(_with_side(streams, stage, side, layout), layout)
            if len(streams) > (2 if layout.exact_nbytes else 1):
                raise FrameError(f"streams that belong to nothing: {', '.join(streams)}")
            return _update_of(streams, layout)

    def aimed(self, **target: float | int) -> "Pipeline":
        for number, stage in enumerate(self.stages):
            if stage.targets:
                return self._with_target(number, **target)
        raise no_target(self)

    def _with_target(self, number: int, **target: float | int) -> "Pipeline":
        stages = list(self.stages)
        parts = self.text.split(" | ")
        lead = len(parts) - len(stages)  # a wrapper stands before the stages
        ((key, value),) = target.items()
        stages[number] = stages[number].with_target(**target)
        name = parts[lead + number].partition("(")[0]
        parts[lead + number] = f"{name}({key}={value!r})"
        return replace(self, stages=tuple(stages), text=" | ".join(parts))

    def uncoded(self, streams: Streams, layout: Layout) -> Streams:
        with only_frame_errors(self):
            for stage in reversed(self.stages):
                if stage.lossless:
                    streams = stage.decode(streams, layout)
        return streams

    def lost(self, before: State, update: Update) -> State:
        return before


def _update_of(streams: Streams, layout: Layout) -> Update:
    """Return the update of the streams that all stages left; raise FrameError if they are not of this layout."""
    values, exact = take(streams, "values", np.float32, layout.size), np.zeros(0, np.uint8)
    if layout.exact_nbytes:
        exact = take(streams, "exact", np.uint8, layout.exact_nbytes)
    if not np.isfinite(values).all():
        raise FrameError("a value is not finite")
    return layout.unflatten(values, exact)


def _with_side(streams: Streams, stage: Stage, side: Update | None, layout: Layout) -> Streams:
    """Return the streams with those of the update that both ends have, for a stage that makes use of it."""
    if side is None or not stage.takes_side:
        return streams
    return {**streams, SIDE: layout.flatten(side)[0]}
