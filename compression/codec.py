"""The two interfaces of compression: a stage (streams in, streams out) and a codec (an update in, a frame out)."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from fedpress.common.errors import FrameError, SpecError
from fedpress.compression.layout import Layout, Update

Streams = dict[str, NDArray[Any]]  # named 1-D arrays; an update enters as {"values": float32 (n,)}
State = Mapping[str, NDArray[Any]]  # a codec's memory between rounds, as named arrays; {} without memory


class CodecFaultError(FrameError):
    """A codec raised another error than FrameError, its cause, while it decoded bytes from outside.

    Examples
    --------
    >>> issubclass(CodecFaultError, FrameError)
    True
    """


@contextmanager
def only_frame_errors(codec: object) -> Iterator[None]:
    """Raise FrameError in place of whatever else is raised within the context: codecs may be of other packages.

    Parameters
    ----------
    codec : object
        The codec, or its stage, which the error names.

    Returns
    -------
    context manager
        It yields None.

    Raises
    ------
    CodecFaultError
        If anything but FrameError is raised within the context.

    Examples
    --------
    >>> with only_frame_errors("theirs"):
    ...     1 / 0
    Traceback (most recent call last):
    fedpress.compression.codec.CodecFaultError: the codec 'theirs' cannot decode it: ZeroDivisionError: division by zero
    """
    try:
        yield
    except FrameError:
        raise
    except Exception as error:
        raise CodecFaultError(f"the codec {str(codec)!r} cannot decode it: {type(error).__name__}: {error}") from error


class Stage(ABC):
    """One step of a pipeline, pure both ways. A frozen dataclass: its fields are its whole configuration.

    A stage defines `encode` and `decode`, and declares by the class attributes and the other methods what else it can
    do. A pipeline asks for nothing but that.

    Attributes
    ----------
    lossless : bool
        Whether `decode` returns exactly what `encode` was given. Such stages come last in a pipeline.
    stateful : bool
        Whether the stage remembers something between updates: see `StatefulStage`.
    takes_side : bool
        Whether the stage makes use of an update that both ends have: it is then given as the stream `streams.SIDE`.
    targets : tuple of str
        The names of the targets that `with_target` takes, e.g. ``("nmse", "bytes")``; empty if there are none.

    Examples
    --------
    A stage that rounds to whole numbers:

    >>> from dataclasses import dataclass
    >>> import numpy as np
    >>> @dataclass(frozen=True)
    ... class Whole(Stage):
    ...     def encode(self, streams, layout, rng):
    ...         return {**streams, "values": np.rint(streams["values"])}
    ...
    ...     def decode(self, streams, layout):
    ...         return streams
    >>> values = np.array([0.4, 1.6], np.float32)
    >>> layout = Layout.of({"x": values})
    >>> Whole().encode({"values": values}, layout, np.random.default_rng(0))["values"].tolist()
    [0.0, 2.0]
    """

    lossless: ClassVar[bool] = False
    stateful: ClassVar[bool] = False
    takes_side: ClassVar[bool] = False
    targets: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def encode(self, streams: Streams, layout: Layout, rng: np.random.Generator) -> Streams:
        """Encode the streams of an update.

        Parameters
        ----------
        streams : dict of str to ndarray
            The streams of the stage before, not to be changed in place: at first {"values": float32 (n,)}.
        layout : Layout
            Names, shapes and dtypes of the update.
        rng : numpy.random.Generator
            The only source of randomness.

        Returns
        -------
        dict of str to ndarray
            The streams for the next stage, 1-D each.

        Raises
        ------
        UpdateError
            If the update cannot be sent so.
        SpecError
            If the stage cannot follow the ones before it.
        """

    @abstractmethod
    def decode(self, streams: Streams, layout: Layout) -> Streams:
        """Return the streams that `encode` was given, exactly or approximately.

        Parameters
        ----------
        streams : dict of str to ndarray
            Streams that came from outside: names, dtypes, sizes and values may be anything.
        layout : Layout
            Names, shapes and dtypes of the update.

        Returns
        -------
        dict of str to ndarray
            The streams for the stage before.

        Raises
        ------
        FrameError
            If `encode` cannot have made these streams; nothing else is raised.
        """

    def init(self, layout: Layout) -> State:
        """Return the memory before the first update.

        Parameters
        ----------
        layout : Layout
            Names, shapes and dtypes of the updates.

        Returns
        -------
        mapping of str to ndarray
            The memory; {} for a stage without memory.
        """
        return {}

    def advance(
        self, streams: Streams, state: State, layout: Layout, rng: np.random.Generator
    ) -> tuple[Streams, State]:
        """Encode the streams of an update, and return the memory after it.

        Parameters
        ----------
        streams, layout, rng
            As of `encode`.
        state : mapping of str to ndarray
            The memory; one of another layout counts as none.

        Returns
        -------
        tuple of (dict of str to ndarray, mapping of str to ndarray)
            The streams for the next stage, and the memory after this update.
        """
        return self.encode(streams, layout, rng), {}

    @property
    def max_frame_bytes(self) -> int | None:
        """The number of bytes that the frame must not exceed; None if the stage sets no limit."""
        return None

    def with_target(self, **target: float | int) -> Self:
        """Return the stage with another target.

        Parameters
        ----------
        **target
            One of `targets`, with its value.

        Returns
        -------
        Stage
            A stage of the same type.

        Raises
        ------
        SpecError
            If the stage does not take this target.
        """
        raise SpecError(f"{type(self).__name__.lower()} takes no target, got {', '.join(target)}")


class StatefulStage(Stage):
    """A stage that remembers something between updates; decoding needs none of it.

    It defines `init`, `advance` and `decode`.

    Examples
    --------
    A stage that sends every other update, and zeros between:

    >>> import numpy as np
    >>> class Alternate(StatefulStage):
    ...     def init(self, layout):
    ...         return {"count": np.zeros(1, np.int64)}
    ...
    ...     def advance(self, streams, state, layout, rng):
    ...         sends = state["count"][0] % 2 == 0
    ...         return {"values": streams["values"] * sends}, {"count": state["count"] + 1}
    ...
    ...     def decode(self, streams, layout):
    ...         return streams
    >>> layout = Layout.of({"x": np.ones(1, np.float32)})
    >>> _, state = Alternate().advance({"values": np.ones(1)}, Alternate().init(layout), layout, None)
    >>> Alternate().advance({"values": np.ones(1)}, state, layout, None)[0]["values"].tolist()
    [0.0]
    """

    stateful: ClassVar[bool] = True

    @abstractmethod
    def init(self, layout: Layout) -> State:
        """Return the memory before the first update."""

    @abstractmethod
    def advance(
        self, streams: Streams, state: State, layout: Layout, rng: np.random.Generator
    ) -> tuple[Streams, State]:
        """Encode the streams of an update, and return the memory after it: see `Stage.advance`."""

    def encode(self, streams: Streams, layout: Layout, rng: np.random.Generator) -> Streams:
        return self.advance(streams, self.init(layout), layout, rng)[0]


class Codec(ABC):
    """An update in, a frame of bytes out, and back: state goes in and comes out, as in optax.

    Examples
    --------
    >>> import numpy as np
    >>> from fedpress.compression import Layout, parse
    >>> codec = parse("ef | topk(0.5) | ans")
    >>> update = {"x": np.array([0.0, 3.0, 0.5, -2.0], np.float32)}
    >>> layout = Layout.of(update)
    >>> frame, state = codec.encode(update, codec.init(layout), np.random.default_rng(0))
    >>> codec.decode(frame, layout)["x"].tolist()
    [0.0, 3.0, 0.0, -2.0]
    >>> state["residual"].tolist()
    [0.0, 0.0, 0.5, 0.0]
    """

    @abstractmethod
    def init(self, layout: Layout) -> State:
        """Return the state before the first update.

        Parameters
        ----------
        layout : Layout
            Names, shapes and dtypes of the updates.

        Returns
        -------
        mapping of str to ndarray
            The state; {} for a codec without memory.
        """

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
        """Encode an update as a frame.

        Parameters
        ----------
        update : dict of str to ndarray
            Tensors by name, of any shapes.
        state : mapping of str to ndarray
            What `init` or the last `encode` returned.
        rng : numpy.random.Generator
            The only source of randomness.
        side : dict of str to ndarray, optional
            An update of the same layout that both ends have, the last broadcast delta: it may make the frame shorter.
        base : bytes
            Hash of the model that the update starts from; the frame carries it.

        Returns
        -------
        tuple of (bytes, mapping of str to ndarray)
            The frame, and the state after it.

        Raises
        ------
        UpdateError
            If the update cannot be sent: a value is not finite, or a target cannot be met.
        """

    @abstractmethod
    def decode(self, frame: bytes, layout: Layout, *, side: Update | None = None, base: bytes | None = None) -> Update:
        """Decode a frame.

        Parameters
        ----------
        frame : bytes
            Bytes that came from outside.
        layout : Layout
            Names, shapes and dtypes of the update that is expected.
        side : dict of str to ndarray, optional
            The update that `encode` was given as `side`.
        base : bytes, optional
            The hash that the frame must carry, or that a short frame leaves out; any that it carries if None.

        Returns
        -------
        dict of str to ndarray
            The update, approximately, in the shapes and dtypes of `layout`.

        Raises
        ------
        FrameError
            If the frame is not one of this codec, layout and base; nothing else is raised.
        """

    def encode_decoded(self, update: Update, rng: np.random.Generator, *, base: bytes = b"") -> tuple[bytes, Update]:
        """Encode an update with a codec without memory, and return also what the frame decodes to.

        Parameters
        ----------
        update, rng, base
            As of `encode`.

        Returns
        -------
        tuple of (bytes, dict of str to ndarray)
            The frame, and the same bits as `decode` returns for it.

        Raises
        ------
        UpdateError
            If the update cannot be sent.
        FrameError
            If the codec cannot decode its own frame.
        """
        frame, _ = self.encode(update, {}, rng, base=base)
        with only_frame_errors(self):
            return frame, self.decode(frame, Layout.of(update), base=base)

    def aimed(self, **target: float | int) -> "Codec":
        """Return this codec with another target of its quantiser.

        Parameters
        ----------
        **target
            One of `step` (in the update's units), `nmse` (part of the update's squared norm), `bits` (per parameter)
            and `bytes` (of the frame), with its value.

        Returns
        -------
        Codec
            A codec of the same stages.

        Raises
        ------
        SpecError
            If the codec has no quantiser with a target.
        """
        raise no_target(self)

    @abstractmethod
    def uncoded(self, streams: Streams, layout: Layout) -> Streams:
        """Return a frame's streams as they were before lossless coding.

        Parameters
        ----------
        streams : dict of str to ndarray
            The streams of a frame, as `read_frame` returns them.
        layout : Layout
            Names, shapes and dtypes of the frame's update.

        Returns
        -------
        dict of str to ndarray
            The streams that the last lossy stage returned.

        Raises
        ------
        FrameError
            If they are not streams of this codec.
        """

    @abstractmethod
    def lost(self, before: State, update: Update) -> State:
        """Return the state of a sender whose frame was not accepted: no part of the update is lost.

        Parameters
        ----------
        before : mapping of str to ndarray
            The state that was given to `encode`.
        update : dict of str to ndarray
            The update that was given to `encode`.

        Returns
        -------
        mapping of str to ndarray
            The state for the next `encode`.
        """

    @property
    @abstractmethod
    def stateful(self) -> bool:
        """Whether `encode` carries anything from one update to the next."""

    @property
    def subspace_share(self) -> float:
        """Share of the dimensions in which updates must lie, and which are sent; 0 if they may be any."""
        return 0.0

    @abstractmethod
    def __str__(self) -> str:
        """Return the spec string that `parse` reads back to an equal codec."""


def no_target(codec: Codec) -> SpecError:
    """Return the error of a codec that has no quantiser with a target.

    Parameters
    ----------
    codec : Codec
        The codec.

    Returns
    -------
    SpecError
        The error.

    Examples
    --------
    >>> from fedpress.compression import parse
    >>> print(no_target(parse("fp16")))
    'fp16' has no target to be set: it must have a stage that takes one, such as deadzone
    """
    return SpecError(f"{str(codec)!r} has no target to be set: it must have a stage that takes one, such as deadzone")
