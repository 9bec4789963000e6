"""The state of a node between messages, in its Flower `Context.state`."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
from flwr.app import Array, ArrayRecord, RecordDict

from fedpress.common.errors import FrameError
from fedpress.common.logs import LOGGER
from fedpress.compression import Layout, State
from fedpress.protocol.arrays import arrays_of
from fedpress.protocol.messages import RECORD_NAME, TrainRequest, extension_name, extension_record
from fedpress.protocol.typed_records import TypedRecord

_BASE, _AFTER, _LOST = "base", "after", "lost"  # their records are named as those of extensions

_log = logging.getLogger(LOGGER)


@dataclass(frozen=True)
class StateFields:
    """The fields of a node's state that are not arrays."""

    version: bytes = b""  # of the model that the node holds, 8 bytes; empty if it holds none
    layout: str = ""  # of the model that the codec's states are of, as text
    server: bytes = b""  # identity of the server that the codec's states are for, 8 bytes
    turn: int = 0  # number of stateful updates that were sent to it
    tensors: bytes = b""  # mask of the tensors that the codec's states are of
    sent: bytes = b""  # name of the last frame, until its acceptance is known, 8 bytes; empty if it is


@dataclass(frozen=True)
class StateRecord(StateFields, TypedRecord):
    """These fields as they are stored."""


@dataclass(frozen=True)
class ClientState(StateFields):
    """A node's base model, its codec's states, and the states of extensions.

    Whether a frame was accepted is in the next request, so there are two states until then: `after` if it was, `lost`
    if it was not and the update has to be sent again.
    """

    base: ArrayRecord | None = None  # the model that the node holds
    after: State = field(default_factory=dict)
    lost: State = field(default_factory=dict)
    extensions: Mapping[str, ArrayRecord] = field(default_factory=dict)  # by the name of the extension

    @classmethod
    def load(cls, state: RecordDict) -> Self:
        """Return the node's state in `state`; empty if nothing is stored, or if this version cannot read it."""
        if RECORD_NAME not in state.config_records:
            return cls()
        try:
            stored = StateRecord.from_record(state.config_records[RECORD_NAME])
        except FrameError as error:
            _log.warning("the node's state is of another version of fedpress, and is dropped: %s", error)
            return cls()
        records = {name: record for key, record in state.array_records.items() if (name := extension_name(key))}
        return cls(
            **vars(stored),
            base=records.pop(_BASE, None),
            after=arrays_of(records.pop(_AFTER, None)),
            lost=arrays_of(records.pop(_LOST, None)),
            extensions=records,
        )

    def save(self, state: RecordDict) -> None:
        """Replace the node's state in `state`; an empty state is not stored."""
        for key in [key for key in state if key == RECORD_NAME or extension_name(key)]:
            del state[key]
        arrays = {_BASE: self.base, _AFTER: _record(self.after), _LOST: _record(self.lost), **self.extensions}
        kept = {extension_record(name): record for name, record in arrays.items() if record}
        if kept or self.sent:
            fields = {name: getattr(self, name) for name in StateRecord.__dataclass_fields__}
            state[RECORD_NAME] = StateRecord(**fields).to_record()
            state.update(kept)

    @property
    def part(self) -> Layout:
        """The layout of the tensors of the codec's states; empty if it is not valid."""
        try:
            return Layout.read(self.layout).part(self.tensors)
        except FrameError:
            return Layout(())

    def settle(self, request: TrainRequest, node: str) -> Self:
        """Return the state given whether the last frame was accepted, which the request contains."""
        if self.server != request.server or request.turn > self.turn:
            # The codec's states are for another server, or older than what this one has received since: their updates
            # may have been counted already, so none of them may be sent again.
            if self.after or self.lost:
                _log.warning("node %s drops the residual of its updates: it is for another state of the server", node)
            return replace(self, server=request.server, turn=request.turn, sent=b"", after={}, lost={}, tensors=b"")
        if not self.sent:
            return self
        return replace(self, sent=b"", after=self.after if self.sent == request.accepted else self.lost, lost={})

    def hold(self, request: TrainRequest, model: ArrayRecord) -> Self:
        """Return the state after the node received the request's model, which is its base if the request has `keep`."""
        return (
            replace(self, version=request.version, base=model)
            if request.keep
            else replace(self, version=b"", base=None)
        )


def _record(state: State) -> ArrayRecord | None:
    return ArrayRecord({name: Array(np.asarray(array)) for name, array in state.items()}) if state else None


def adapt_state(state: State, old: Layout, fresh: State, new: Layout) -> State:
    """Return a codec's `state`, of the tensors of `old`, as a state of those of `new`.

    Arrays of one value for each value of the layout, such as residuals, follow their tensors, and start at zero where
    a tensor is new or of another shape. All others, such as warm starts, start as in `fresh`, a new state of `new`, if
    the tensors differ, or the codec.
    """
    if (
        old == new
        and state.keys() == fresh.keys()
        # An older state may have another number of values than the layout has now.
        and all(state[key].shape == array.shape for key, array in fresh.items())
    ):
        return state
    adapted = dict(fresh)
    for key, array in fresh.items():
        known = state.get(key)
        if known is None or known.shape != (old.size,) or array.shape != (new.size,):
            continue
        values = dict(zip(((t.name, t.shape) for t in old.lossy), np.split(known, _ends(old)), strict=False))
        parts = [values.get((t.name, t.shape), np.zeros(t.size, np.float32)) for t in new.lossy]
        adapted[key] = np.concatenate(parts) if parts else array
    return adapted


def _ends(layout: Layout) -> list[int]:
    """Return where each floating-point tensor ends among the values, the last left out."""
    ends = np.cumsum([tensor.size for tensor in layout.lossy])
    return [int(end) for end in ends[:-1]]
