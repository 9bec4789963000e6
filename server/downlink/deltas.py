"""A delta for each node, from the model that it holds to the server's.

Borrowed from video coding, except that each node has its own base: a node that missed ten rounds gets one delta over
all ten, coded against the model that it still holds, of which the server keeps a copy. In theory that takes fewer
bytes than the ten deltas one by one (successive refinement: Equitz and Cover 1991,
https://doi.org/10.1109/18.75242, is free of loss only if every step is needed); docs/results/recipes.md has
the bytes.
"""

from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass, replace
from typing import Any, Protocol

import numpy as np

from fedpress.common.rng import derive
from fedpress.compression import Codec, Update
from fedpress.compression.updates import changed, version_of
from fedpress.protocol.messages import LOSSLESS
from fedpress.protocol.model_frames import ModelFrames, make_delta, make_key
from fedpress.server.downlink.downlink import Downlink
from fedpress.server.downlink.model_store import ModelStore

Code = Callable[[Update], tuple[int, Update]]  # bytes of the delta to a model, and the decoded model


@dataclass(frozen=True)
class DeltaContext:
    """A delta that is about to be encoded.

    Examples
    --------
    >>> model = {"w": np.zeros(2, np.float32)}
    >>> context = DeltaContext(exact=model, code=lambda aim: (7, aim), round=1, seed=0)
    >>> context.code(model)[0]
    7
    """

    exact: Update  # the server's model w, which it should approximate
    code: Code  # encodes a delta to a model
    round: int  # the round that produced w
    seed: int  # of the run


class DeltaHooks(Protocol):
    """The part of an extension that chooses what deltas approximate."""

    def aim_delta(self, aim: Update, context: DeltaContext) -> Update:
        """Return the model that a delta approximates in place of `aim`."""


class DeltaDownlink(Downlink):
    """Deltas, each against the model that its node holds, of which the server keeps a copy.

    Nodes that missed rounds reconstruct other models than `model`: the codec has the same target for every delta.

    Parameters
    ----------
    codec, key, initial, seed, versions, prunes
        As of `Downlink`.
    shared_initial : bool
        Whether every node has `initial` before its first message.
    stateless : bool
        Whether nodes keep no model: every message holds a whole model, or the delta from a shared initial one.
    hooks : DeltaHooks | None
        Choose the model that deltas approximate; None for w itself.
    """

    def __init__(
        self,
        codec: Codec,
        key: Codec,
        initial: Mapping[str, np.ndarray],
        seed: int,
        versions: ModelStore,
        *,
        shared_initial: bool = False,
        stateless: bool = False,
        prunes: bool = False,
        hooks: DeltaHooks | None = None,
    ) -> None:
        super().__init__(codec, key, initial, seed, versions, prunes=prunes)
        self.keep = not stateless and str(codec) != LOSSLESS
        self.lossless = not self.keep and str(key) == LOSSLESS and not shared_initial
        self._hooks = hooks
        self._aim: Update | None = None  # the model that v's delta approximates, if not w
        self._newest: tuple[bytes, ModelFrames] | None = None  # the base of v's last delta, and the delta
        self.initial = b""
        if shared_initial and str(codec) != LOSSLESS:
            self.initial = versions.put(self.exact)
        # All nodes start with the same model: w, or w as a lossy key frame reproduces it.
        self._set_model(self.exact if self.initial or self.lossless else self._key_frames()[1])

    def _set_model(self, model: Update) -> None:
        self.model = model
        self.version = self.versions.put(model) if self.keep else version_of(model, self.layout)

    def advance(self, wanted: Mapping[str, np.ndarray], round: int) -> None:
        self._set_exact(wanted)
        self.round, self._newest, self._aim = round, None, None
        self._frames.clear()
        if self.lossless:
            self._set_model(self.exact)
        elif not self.keep:
            self._aim = self._choose_aim(self.initial) if self.initial else None
            self._set_model(self._delta(self.initial, self._aim)[1] if self.initial else self._key_frames()[1])
        elif changed(self.exact, self.model):
            old = self.version
            self._aim = self._choose_aim(old)
            frames, model = self._delta(old, self._aim)
            self._set_model(model)
            self._newest = old, replace(frames, version=self.version)
            self._frames[old, False] = self._newest[1]

    def save(self) -> dict[str, Any]:
        newest = None if self._newest is None else [self._newest[0], *astuple(self._newest[1])]
        saved = {"w": self.exact, "v": self.model, "newest": newest}
        return saved if self._aim is None else {**saved, "aim": self._aim}

    def starts_from(self, version: bytes) -> bool:
        return version in self.versions

    def resume(self, saved: Mapping[str, Any], round: int) -> None:
        self._set_exact(saved["w"])
        self.round, self._aim = round, saved.get("aim")
        self._frames.clear()
        self._set_model(saved["v"])
        if saved["newest"] is not None:
            old, *frames = saved["newest"]
            self._newest = old, ModelFrames(*frames)
            self._frames[old, False] = self._newest[1]

    def _make_frames(self, held: bytes, *, key: bool) -> ModelFrames:
        if self.keep and not key and held == self.version:
            return ModelFrames((), (), (), version=held)
        if not self.keep and self.initial and not key:
            return replace(self._delta(self.initial, self._aim)[0], version=self.version)
        if self.keep and not key and held in self.versions:
            frames, model = self._delta(held)
            if frames.nbytes < self.layout.nbytes:
                return replace(frames, version=self.versions.put(model))
        frames, model = self._key_frames()
        version = self.versions.put(model) if self.keep else version_of(model, self.layout)
        return replace(frames, version=version)

    def _choose_aim(self, held: bytes) -> Update | None:
        """Return the model that a delta from `held` approximates, None for w."""
        if self._hooks is None:
            return None

        def code(aim: Update) -> tuple[int, Update]:
            frames, model = self._delta(held, aim)
            return frames.nbytes, model

        aim = self._hooks.aim_delta(self.exact, DeltaContext(self.exact, code, self.round, self.seed))
        return None if aim is self.exact else aim

    def _delta(self, held: bytes, aim: Update | None = None) -> tuple[ModelFrames, Update]:
        """Return the delta from `held` to `aim`, or to w if None, and the decoded model."""
        base = self.versions.get(held)
        rng = derive(self.seed, "down", self.round, held.hex())
        return make_delta(self.target, base, held, self.codec, rng, aim=aim)

    def _key_frames(self) -> tuple[ModelFrames, Update]:
        """Return the key frames of w, and the decoded model."""
        return make_key(self.target, self.key, derive(self.seed, "key", self.round))
