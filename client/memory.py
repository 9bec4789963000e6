"""What a node remembers between messages, kept in its Flower `Context.state`."""

from dataclasses import dataclass, field
from typing import Self

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from fedpress.compression import State, Update
from fedpress.compression.message import KEY

_BASE, _AFTER, _LOST = f"{KEY}.base", f"{KEY}.after", f"{KEY}.lost"


@dataclass(frozen=True)
class Memory:
    """A node's base model and its codec's state.

    After a frame was sent, nobody knows yet whether it was accepted, so there are two states until the server says:
    `after` if it was, `lost` if it was not and the update has to go out again.
    """

    version: bytes = b""  # name of the model in `base`; empty if there is none
    layout: str = ""  # the model's layout, as text
    base: ArrayRecord | None = None
    spec: str = ""  # the codec that the states below belong to
    sent: bytes = b""  # name of the frame that awaits its verdict; empty if none does
    after: State = field(default_factory=dict)
    lost: State = field(default_factory=dict)

    @classmethod
    def load(cls, state: RecordDict) -> Self:
        """Return what `state` holds; an empty memory if it holds nothing."""
        if KEY not in state.config_records:
            return cls()
        config = state.config_records[KEY]
        records = state.array_records
        return cls(
            version=bytes(config["version"]),  # type: ignore[arg-type]
            layout=str(config["layout"]),
            base=records.get(_BASE),
            spec=str(config["spec"]),
            sent=bytes(config["sent"]),  # type: ignore[arg-type]
            after=_arrays(records.get(_AFTER)),
            lost=_arrays(records.get(_LOST)),
        )

    def save(self, state: RecordDict) -> None:
        """Put this memory into `state` in place of what was there; a memory of nothing leaves nothing there."""
        for key in (KEY, _BASE, _AFTER, _LOST):
            state.pop(key, None)
        if not (self.base or self.sent or self.after or self.lost):
            return
        state[KEY] = ConfigRecord(
            {"version": self.version, "layout": self.layout, "spec": self.spec, "sent": self.sent}
        )
        for key, record in ((_BASE, self.base), (_AFTER, _record(self.after)), (_LOST, _record(self.lost))):
            if record:
                state[key] = record


def model_record(model: Update) -> ArrayRecord:
    """Return `model` as the ArrayRecord that apps expect."""
    return ArrayRecord({name: Array(np.asarray(array, order="C")) for name, array in model.items()})


def _record(state: State) -> ArrayRecord | None:
    return ArrayRecord({name: Array(np.asarray(array)) for name, array in state.items()}) if state else None


def _arrays(record: ArrayRecord | None) -> State:
    return {name: array.numpy() for name, array in record.items()} if record else {}
