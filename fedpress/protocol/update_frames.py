"""Frames of updates: made by a node from the model that it trained, and decoded by the server."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fedpress.compression import Codec, Layout, State, Update
from fedpress.compression.updates import difference
from fedpress.compression.weight_masks import WeightMasks
from fedpress.protocol.messages import LOSSLESS


@dataclass(frozen=True, eq=False)
class UpdateCoding:
    """How one update is coded, as both ends know it.

    With the codec that loses nothing a frame holds the trained tensors, which take as few bytes as what changed of
    them and are exact; with any other codec it holds what changed.
    """

    codec: Codec
    part: Layout  # of the tensors that the frame holds
    masks: WeightMasks  # the weights of the model that are not pruned: the frame holds no others
    version: bytes  # of the model that was trained, 8 bytes
    delta: Update | None  # what the last delta changed of that model, at least the tensors of `part`; None if unknown

    @property
    def whole(self) -> bool:
        """Whether the frame holds the trained tensors, and not what changed of them."""
        return str(self.codec) == LOSSLESS

    def select(self, trained: Mapping[str, np.ndarray], model: Update) -> Update:
        """Return what the frame is to hold, `trained` being what training made of `model`."""
        if self.whole:
            return self.masks.select({tensor.name: trained[tensor.name] for tensor in self.part.tensors})
        return self.masks.select(difference(trained, model, self.part))

    def encode(self, selected: Update, state: State, rng: np.random.Generator) -> tuple[bytes, State, State]:
        """Return the frame, the codec's state if it is accepted, and the state if it is not.

        Parameters
        ----------
        selected : what `select` returned
        state : the codec's state of all weights of the tensors of `part`; empty for a codec without memory

        Raises
        ------
        UpdateError
            If an update cannot be coded, as one that is not finite.
        """
        if self.whole:
            return self.codec.encode(selected, {}, rng)[0], {}, {}
        before = self._of_live_weights(state)
        frame, after = self.codec.encode(selected, before, rng, side=self._side(), base=self.version)
        lost = self.codec.lost(before, selected) if self.codec.stateful else {}
        return frame, self.masks.restore_state(after, self.part), self.masks.restore_state(lost, self.part)

    def decode(self, frame: bytes) -> Update:
        """Return what the frame holds, zero where a weight is pruned.

        Raises
        ------
        FrameError
            If the frame does not decode, or is of an update of another model.
        """
        base = b"" if self.whole else self.version
        held = self.codec.decode(frame, self.masks.unpruned(self.part), side=self._side(), base=base)
        return self.masks.restore(held, self.part)

    def _side(self) -> Update | None:
        if self.whole or self.delta is None:
            return None
        return self.masks.select({tensor.name: self.delta[tensor.name] for tensor in self.part.tensors})

    def _of_live_weights(self, state: State) -> State:
        """Return the part of `state` for weights that are not pruned; those that were pruned before start at zero."""
        if not self.masks.by_name:
            return state
        fresh, thin = self.codec.init(self.masks.unpruned(self.part)), self.masks.select_state(state, self.part)
        return {
            key: thin[key] if key in thin and thin[key].shape == array.shape else array for key, array in fresh.items()
        }
