"""What a node remembers between messages, kept in its Flower `Context.state`."""

from dataclasses import dataclass, field
from typing import Self

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from fedpress.compression import FrameError, Layout, State, Update
from fedpress.protocol.messages import RECORD_NAME

_BASE, _AFTER, _LOST, _OWN = f"{RECORD_NAME}.base", f"{RECORD_NAME}.after", f"{RECORD_NAME}.lost", f"{RECORD_NAME}.own"


@dataclass(frozen=True)
class Memory:
    """A node's base model and its codec's state.

    After a frame was sent, nobody knows yet whether it was accepted, so there are two states until the server says:
    `after` if it was, `lost` if it was not and the update has to go out again.
    """

    version: bytes = b""  # name of the model in `base`; empty if there is none
    layout: str = ""  # of the model that the states below are of, as text
    base: ArrayRecord | None = None
    server: bytes = b""  # the run of the server that the rest is about
    turn: int = 0  # how many updates were sent
    tensors: bytes = b""  # mask of the tensors that the states below are of
    sent: bytes = b""  # name of the frame that awaits its verdict; empty if none does
    after: State = field(default_factory=dict)
    lost: State = field(default_factory=dict)
    own: ArrayRecord | None = None  # tensors that stay on this node, as its last training left them

    @classmethod
    def load(cls, state: RecordDict) -> Self:
        """Return what `state` holds; an empty memory if it holds nothing."""
        if RECORD_NAME not in state.config_records:
            return cls()
        config = state.config_records[RECORD_NAME]
        records = state.array_records
        return cls(
            version=bytes(config["version"]),  # type: ignore[arg-type]
            layout=str(config["layout"]),
            base=records.get(_BASE),
            server=bytes(config["server"]),  # type: ignore[arg-type]
            turn=int(config["turn"]),  # type: ignore[arg-type]
            tensors=bytes(config["tensors"]),  # type: ignore[arg-type]
            sent=bytes(config["sent"]),  # type: ignore[arg-type]
            after=_arrays(records.get(_AFTER)),
            lost=_arrays(records.get(_LOST)),
            own=records.get(_OWN),
        )

    @property
    def part(self) -> Layout:
        """The layout of the tensors that the states are of; of none if that is not known."""
        try:
            return Layout.read(self.layout).part(self.tensors)
        except FrameError:
            return Layout(())

    def save(self, state: RecordDict) -> None:
        """Put this memory into `state` in place of what was there; a memory of nothing leaves nothing there."""
        for key in (RECORD_NAME, _BASE, _AFTER, _LOST, _OWN):
            state.pop(key, None)
        if not (self.base or self.sent or self.after or self.lost or self.own):
            return
        state[RECORD_NAME] = ConfigRecord(
            {
                "version": self.version,
                "layout": self.layout,
                "server": self.server,
                "turn": self.turn,
                "tensors": self.tensors,
                "sent": self.sent,
            }
        )
        states = (_AFTER, _record(self.after)), (_LOST, _record(self.lost))
        for key, record in ((_BASE, self.base), *states, (_OWN, self.own)):
            if record:
                state[key] = record


def model_record(model: Update) -> ArrayRecord:
    """Return `model` as the ArrayRecord that apps expect."""
    return ArrayRecord({name: Array(np.asarray(array, order="C")) for name, array in model.items()})


def _record(state: State) -> ArrayRecord | None:
    return ArrayRecord({name: Array(np.asarray(array)) for name, array in state.items()}) if state else None


def _arrays(record: ArrayRecord | None) -> State:
    return {name: array.numpy() for name, array in record.items()} if record else {}


def adapt(state: State, old: Layout, fresh: State, new: Layout) -> State:
    """Return `state`, of the tensors of `old`, as it is for those of `new`; `fresh` is a new one of them.

    What is kept value by value, as a residual is, goes with its tensor, and begins at zero where the tensor is new, or
    of another shape. Anything else, as a warm start is, begins anew if the tensors are others, or the codec.
    """
    if (
        old == new
        and state.keys() == fresh.keys()
        # A state that was kept before may count other values than a layout has now.
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
