"""Frames of updates: made by a node from the model that it trained, and decoded by the server."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fedpress.compression import Codec, Layout, State, Update
from fedpress.compression.codec import only_frame_errors
from fedpress.compression.frame import shorten
from fedpress.compression.updates import difference
from fedpress.compression.weight_masks import WeightMasks
from fedpress.protocol.messages import LOSSLESS


@dataclass(frozen=True, eq=False)
class UpdateCoding:
    """The encoding of one update, the same at both ends.

    With the lossless codec a frame holds the trained tensors, which are as many bytes as their changes and exact; with
    any other codec it holds the changes.
    """

    codec: Codec
    part: Layout  # of the tensors that the frame holds
    masks: WeightMasks  # of the model: the frame holds no pruned weights
    version: bytes  # of the model that was trained, 8 bytes
    delta: Update | None  # the last delta of that model, at least for the tensors of `part`; None if one end lacks it

    @property
    def whole(self) -> bool:
        """Whether the frame holds the trained tensors instead of their changes."""
        return str(self.codec) == LOSSLESS

    def select(self, trained: Mapping[str, np.ndarray], model: Update) -> Update:
        """Return the content of the frame, for the model `trained` from `model`."""
        if self.whole:
            return self.masks.select({tensor.name: trained[tensor.name] for tensor in self.part.tensors})
        return self.masks.select(difference(trained, model, self.part))

    def encode(self, selected: Update, state: State, rng: np.random.Generator) -> tuple[bytes, State, State]:
        """Return the short frame, the codec's state if it is accepted, and the state if it is not.

        Parameters
        ----------
        selected : Update
            Content of the frame, from `select`.
        state : State
            The codec's state of all weights of the tensors of `part`; empty for a codec without memory.

        Raises
        ------
        UpdateError
            If an update cannot be encoded, such as one that is not finite.
        """
        if self.whole:
            return shorten(self.codec.encode(selected, {}, rng)[0]), {}, {}
        before = self._unpruned_state(state)
        frame, after = self.codec.encode(selected, before, rng, side=self._side(), base=self.version)
        lost = self.codec.lost(before, selected) if self.codec.stateful else {}
        return shorten(frame), self.masks.restore_state(after, self.part), self.masks.restore_state(lost, self.part)

    def decode(self, frame: bytes) -> Update:
        """Return the content of the frame, zero where a weight is pruned.

        Raises
        ------
        FrameError
            If the frame does not decode, or is of an update of another model.
        """
        base = b"" if self.whole else self.version
        with only_frame_errors(self.codec):
            content = self.codec.decode(frame, self.masks.unpruned(self.part), side=self._side(), base=base)
        return self.masks.restore(content, self.part)

    def _side(self) -> Update | None:
        if self.whole or self.delta is None:
            return None
        return self.masks.select({tensor.name: self.delta[tensor.name] for tensor in self.part.tensors})

    def _unpruned_state(self, state: State) -> State:
        """Return the part of `state` for weights that are not pruned; those that were pruned before start at zero."""
        if not self.masks.by_name:
            return state
        fresh, kept = self.codec.init(self.masks.unpruned(self.part)), self.masks.select_state(state, self.part)
        return {
            key: kept[key] if key in kept and kept[key].shape == array.shape else array for key, array in fresh.items()
        }
