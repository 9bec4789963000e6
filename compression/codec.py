"""The two interfaces of this room: a stage (streams in, streams out) and a codec (an update in, a frame out)."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedpress.common.errors import SpecError
from fedpress.compression.layout import Layout, Update

Streams = dict[str, NDArray[Any]]  # named 1-D arrays; an update enters as {"values": float32 (n,)}
State = Mapping[str, NDArray[Any]]  # what a codec remembers between rounds, as named arrays; {} if nothing


class Stage(ABC):
    """One step of a pipeline, pure both ways. A frozen dataclass: its fields are its whole configuration."""

    lossless: ClassVar[bool] = False  # whether decode gives exactly what encode was given

    @abstractmethod
    def encode(self, streams: Streams, layout: Layout, rng: np.random.Generator) -> Streams:
        """Return what goes to the next stage."""

    @abstractmethod
    def decode(self, streams: Streams, layout: Layout) -> Streams:
        """Return what `encode` was given, or what stands for it; raise FrameError and nothing else."""


class StatefulStage(Stage):
    """A stage that remembers something between updates; decoding needs none of it."""

    @abstractmethod
    def init(self, layout: Layout) -> State:
        """Return the memory before the first update."""

    @abstractmethod
    def advance(
        self, streams: Streams, state: State, layout: Layout, rng: np.random.Generator
    ) -> tuple[Streams, State]:
        """Return what goes to the next stage, and the memory after it; a memory of another layout is as none."""

    def encode(self, streams: Streams, layout: Layout, rng: np.random.Generator) -> Streams:
        return self.advance(streams, self.init(layout), layout, rng)[0]


class Codec(ABC):
    """An update in, a frame of bytes out, and back: optax's shape, state goes in and comes out.

    `side` is an update that both ends know (the last broadcast delta) and may condition the coder; `base` is the hash
    of the model that the update starts from, carried by the frame.
    """

    @abstractmethod
    def init(self, layout: Layout) -> State:
        """Return the state before the first update; {} for a codec without memory."""

    @abstractmethod
    def encode(
        self,
        update: Update,
        state: State,
        rng: np.random.Generator,
        *,
        side: Update | None = None,
        base: bytes = b"",
    ) -> tuple[bytes, State]:
        """Return `update` as a frame, and the state after it; raise UpdateError if it cannot be sent."""

    @abstractmethod
    def decode(self, frame: bytes, layout: Layout, *, side: Update | None = None, base: bytes | None = None) -> Update:
        """Return the update that `frame` stands for; raise FrameError and nothing else.

        A `base` other than None must be the frame's own.
        """

    def pinned(self, frame: bytes, layout: Layout, coarser: float = 1.0) -> "Codec":
        """Return this codec with the step that it found for `frame`, one of its own, in place of a target.

        The step is made `coarser` times as large; with 1 what is then encoded has about the same error. No search is
        needed. A codec without a step is itself.
        """
        return self

    def aimed(self, **target: float | int) -> "Codec":
        """Return this codec with another target of its quantiser: one of step, nmse, bits and bytes.

        Raises
        ------
        SpecError
            If it has no quantiser with a target.
        """
        raise no_target(self)

    @abstractmethod
    def lost(self, before: State, update: Update) -> State:
        """Return the state of a sender whose frame was not accepted.

        `before` is the state that went into `encode`, and `update` the update: nothing of either may be lost.
        """

    @property
    @abstractmethod
    def stateful(self) -> bool:
        """Whether `encode` carries anything from one update to the next."""

    @abstractmethod
    def __str__(self) -> str:
        """Return the spec string that `codec` reads back to an equal codec."""


def no_target(codec: Codec) -> SpecError:
    """Return the error of a codec that cannot be told to meet a target."""
    return SpecError(f"{str(codec)!r} has no target to be set: lowrank, deadzone and trellis have")
