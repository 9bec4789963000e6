"""The interface of the downlink: key frames hold a whole model, deltas the change from a model that a node holds."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from fedpress.common.errors import SettingError
from fedpress.compression import Codec, Layout, Update, UpdateError
from fedpress.compression.updates import representable
from fedpress.compression.weight_masks import UNPRUNED, WeightMasks
from fedpress.protocol.model_frames import ModelFrames, Target
from fedpress.server.downlink.model_store import ModelStore


class Downlink(ABC):
    """The versions of the model as nodes can reconstruct it.

    `exact` is the server's own model w. `model` is v, which is evaluated: the model of a node that received every
    frame.

    Parameters
    ----------
    codec : Codec
        The codec of deltas.
    key : Codec
        The codec of matrices in key frames; vectors, which may be variances that must not become zero, are exact.
    initial : mapping of str to ndarray
        The model w before the first round.
    seed : int
        Seed of the run.
    versions : ModelStore
        Stores the models that nodes hold.
    prunes : bool
        Whether weights of w that are minus zero are pruned, and not sent.
    """

    keep: bool  # whether nodes keep their model as the base of a delta
    initial: bytes  # version that nodes have before their first message; empty if none
    model: Update
    version: bytes  # of `model`

    def __init__(
        self,
        codec: Codec,
        key: Codec,
        initial: Mapping[str, np.ndarray],
        seed: int,
        versions: ModelStore,
        *,
        prunes: bool = False,
    ) -> None:
        self.codec = codec
        self.key = key
        self.layout = Layout.of(dict(initial))
        self.versions = versions
        self.prunes = prunes
        self.seed = seed
        self.round = 0
        self._frames: dict[tuple[bytes, bool], ModelFrames] = {}  # by version held, and whether a key frame is needed
        self._set_exact(initial)

    @abstractmethod
    def advance(self, wanted: Mapping[str, np.ndarray], round: int) -> None:
        """Advance to `wanted`, the server's exact model after `round`."""

    def frames_for(self, held: bytes, *, key: bool = False) -> ModelFrames:
        """Return the frames of the newest model for a node that holds version `held`, empty for none.

        With `key` they need no base. Nodes in the same state receive the same object.
        """
        held = held or self.initial
        if key or not self.starts_from(held):
            held = b""
        if (held, key) not in self._frames:
            self._frames[held, key] = self._make_frames(held, key=key)
        return self._frames[held, key]

    @abstractmethod
    def _make_frames(self, held: bytes, *, key: bool) -> ModelFrames:
        """Return the frames for a node that holds version `held`, of those to start from, or key frames."""

    @abstractmethod
    def starts_from(self, version: bytes) -> bool:
        """Return whether there are frames for a node that holds `version`, other than key frames."""

    @abstractmethod
    def save(self) -> dict[str, Any]:
        """Return the state for `resume`."""

    @abstractmethod
    def resume(self, saved: Mapping[str, Any], round: int) -> None:
        """Restore the state that `save` returned after `round`."""

    def check(self, saved: Mapping[str, Any]) -> None:
        """Raise SettingError if the state that `save` returned is of a model with another layout."""
        try:
            self.layout.check(saved["w"])
        except UpdateError as error:
            raise SettingError(f"the checkpoint is of another model: {error}; name another folder") from error

    def _set_exact(self, model: Mapping[str, np.ndarray]) -> None:
        self.exact = representable(model, self.layout)
        self.masks = WeightMasks.of(self.exact, self.layout) if self.prunes else UNPRUNED
        self.target = Target(self.exact, self.layout, self.masks if self.prunes else None)
