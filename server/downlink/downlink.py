"""The downlink: key frames hold a whole model, delta frames lead from what a node holds to what the server has.

Borrowed from video coding, but every node has a base of its own: a node that was away for ten rounds gets one delta
over all ten, coded against the very model that it was left with, which the server keeps. In theory that takes fewer
bytes than the ten deltas one by one (successive refinement: Equitz and Cover 1991,
https://doi.org/10.1109/18.75242, has no loss only where every step is wanted); docs/results/recipes.md has
the bytes.
"""

from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass, replace
from typing import Any, Protocol

import numpy as np

from fedpress.common.rng import derive
from fedpress.compression import Codec, Layout, Update, UpdateError, parse
from fedpress.compression.updates import changed, representable, version_of
from fedpress.compression.weight_masks import UNPRUNED, WeightMasks
from fedpress.protocol.messages import LOSSLESS
from fedpress.protocol.model_frames import ModelFrames, Target, make_delta, make_key
from fedpress.server.downlink.model_store import ModelStore

Code = Callable[[Update], tuple[int, Update]]  # bytes of the delta to a model, and the model that it really leads to


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

    exact: Update  # the model that it should lead to, w
    code: Code  # encodes a delta to a model
    round: int  # after which w is the server's model
    seed: int  # of the run


class DeltaHooks(Protocol):
    """The part of an extension that shapes deltas."""

    def aim_delta(self, aim: Update, context: DeltaContext) -> Update:
        """Return the model that a delta is aimed at in place of `aim`."""

    def late_delta_step(self) -> float:
        """Return the factor by which deltas are quantized coarser for nodes that missed rounds."""


class Downlink:
    """The versions of the model as nodes can reconstruct it.

    `exact` is the server's own model w. `model` is v, what a node reconstructs that gets every delta: the one that is
    evaluated. Nodes that were away get to versions of their own, coded with the step that v's last delta was coded
    with: about as near to w as v is, unless `hooks` make it coarser.

    Parameters
    ----------
    codec : Codec
        The codec of deltas.
    key : Codec
        The codec of key frames' matrices; vectors, which may be variances that must not become zero, are always exact.
    initial : mapping of str to ndarray
        The model w before the first round.
    seed : int
        Seed of the run.
    versions : ModelStore
        Stores the models that nodes hold.
    shared_initial : bool
        Whether every node has `initial` before it is sent anything.
    stateless : bool
        Whether nodes keep nothing: every message holds a whole model, or the delta from a shared initial one.
    sparse : bool
        Whether weights of w that are minus zero are pruned, and left out.
    hooks : DeltaHooks | None
        Choose what deltas approximate; None for w itself.
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
        sparse: bool = False,
        hooks: DeltaHooks | None = None,
    ) -> None:
        self.codec = codec
        self.key = key
        self.layout = Layout.of(dict(initial))
        self.keep = not stateless and str(codec) != LOSSLESS  # whether nodes keep their model as the base of a delta
        self.lossless = not self.keep and str(key) == LOSSLESS and not shared_initial
        self.versions = versions
        self.sparse = sparse
        self._seed = seed
        self._hooks = hooks
        self._aim: Update | None = None  # what v's delta is aimed at, if that is not w
        self._pinned = codec
        self._round = 0
        self._newest: tuple[bytes, ModelFrames] | None = None  # v's last delta, and the version that it started from
        self._ready: dict[
            tuple[bytes, bool], ModelFrames
        ] = {}  # (what a node holds, whether it needs a key) -> its frames
        self._set_exact(initial)
        self.initial = b""  # name of the model that nodes have before they are sent anything; empty if none
        if shared_initial and str(codec) != LOSSLESS:
            self.initial = versions.put(self.exact)
        # All nodes begin with the same model; a key frame that loses something makes another one of it.
        self._set(self.exact if self.initial or self.lossless else self._from_key()[1])

    def _set_exact(self, model: Mapping[str, np.ndarray]) -> None:
        self.exact = representable(model, self.layout)
        self.masks = WeightMasks.of(self.exact, self.layout) if self.sparse else UNPRUNED
        self._target = Target(self.exact, self.layout, self.masks if self.sparse else None)

    def _set(self, model: Update) -> None:
        self.model = model
        self.version = self.versions.put(model) if self.keep else version_of(model, self.layout)

    def advance(self, wanted: Mapping[str, np.ndarray], round: int) -> None:
        """Go on to `wanted`, the server's exact model after `round`."""
        self._set_exact(wanted)
        self._round, self._newest, self._aim = round, None, None
        self._ready.clear()
        if self.lossless:
            self._set(self.exact)
        elif not self.keep:
            self._aim = self._aimed(self.initial) if self.initial else None
            self._set(self._delta(self.initial, self.codec, self._aim)[1] if self.initial else self._from_key()[1])
        elif changed(self.exact, self.model):
            old = self.version
            self._aim = self._aimed(old)
            frames, model = self._delta(old, self.codec, self._aim)
            self._set(model)
            self._newest = old, replace(frames, version=self.version)
            self._ready[old, False] = self._newest[1]

    def frames_for(self, held: bytes, *, key: bool = False) -> ModelFrames:
        """Return the frames that bring a node that holds version `held`, empty for none, to the newest model."""
        held = held or self.initial
        if (held, key) not in self._ready:
            self._ready[held, key] = self._make(held, key=key)
        return self._ready[held, key]

    def save(self) -> dict[str, Any]:
        """Return what `resume` needs."""
        newest = None if self._newest is None else [self._newest[0], *astuple(self._newest[1])]
        saved = {"w": self.exact, "v": self.model, "pinned": str(self._pinned), "newest": newest}
        return saved if self._aim is None else {**saved, "aim": self._aim}

    def resume(self, saved: Mapping[str, Any], round: int) -> None:
        """Go on from what `save` returned when `round` was over."""
        self._set_exact(saved["w"])
        self._round, self._pinned = round, parse(saved["pinned"])
        self._aim = saved.get("aim")
        self._ready.clear()
        self._set(saved["v"])
        if saved["newest"] is not None:
            old, *frames = saved["newest"]
            self._newest = old, ModelFrames(*frames)
            self._ready[old, False] = self._newest[1]

    def _make(self, held: bytes, *, key: bool) -> ModelFrames:
        if self.keep and not key and held == self.version:
            return ModelFrames((), (), version=held)
        if not self.keep and self.initial and not key:
            return replace(self._delta(self.initial, self.codec, self._aim)[0], version=self.version)
        if self.keep and not key and held in self.versions:
            frames, model = self._delta(held, self._pinned)
            if frames.nbytes < self.layout.nbytes:
                return replace(frames, version=self.versions.put(model))
        frames, model = self._from_key()
        version = self.versions.put(model) if self.keep else version_of(model, self.layout)
        return replace(frames, version=version)

    def _aimed(self, held: bytes) -> Update | None:
        """Return the model that a delta from `held` is aimed at, None for w."""
        if self._hooks is None:
            return None

        def code(aim: Update) -> tuple[int, Update]:
            frames, model = self._delta(held, self.codec, aim)
            return frames.nbytes, model

        aim = self._hooks.aim_delta(self.exact, DeltaContext(self.exact, code, self._round, self._seed))
        return None if aim is self.exact else aim

    def _delta(self, held: bytes, codec: Codec, aim: Update | None = None) -> tuple[ModelFrames, Update]:
        """Return the delta from `held` to w, or aimed beside it, and where it leads."""
        base = self.versions.get(held)
        rng = derive(self._seed, "down", self._round, held.hex())
        try:
            frames, model = make_delta(self._target, base, held, codec, rng, aim=aim)
        except UpdateError:  # a step that fits a round's change may be too fine for what many rounds changed
            codec = self.codec
            frames, model = make_delta(self._target, base, held, codec, rng, aim=aim)
        if codec is self.codec:
            part = self.layout.part(frames.tensors[0])
            coarser = self._hooks.late_delta_step() if self._hooks else 1.0
            self._pinned = codec.pinned(frames.frames[0], self.masks.unpruned(part), coarser)
        return frames, model

    def _from_key(self) -> tuple[ModelFrames, Update]:
        """Return the key frames of w, and where they lead."""
        return make_key(self._target, self.key, derive(self._seed, "key", self._round))
