"""The round's steps, the same for all nodes: Sattler et al. 2019, https://arxiv.org/abs/1903.02891, section V.

After each round the server codes how its model is to change, and takes the decoded step itself: nodes that receive
every step hold the server's exact model. A node that was away is sent the steps that it missed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import astuple, replace
from typing import Any

import numpy as np

from fedpress.common.rng import derive
from fedpress.compression import Codec, parse
from fedpress.compression.updates import changed, representable
from fedpress.protocol.messages import LOSSLESS
from fedpress.protocol.model_frames import ModelFrames, Target, make_delta, make_key
from fedpress.server.downlink.downlink import Downlink
from fedpress.server.downlink.model_store import ModelStore


class StepDownlink(Downlink):
    """Steps that the server's model and those of all nodes follow.

    Their error is in `exact` itself, where later rounds correct it, so that it has to be unbiased, and may be large.
    Steps are kept until they take more bytes than the model.

    Parameters
    ----------
    codec, key, initial, seed, versions
        As of `Downlink`.
    shared_initial : bool
        Whether every node has `initial` before its first message; else all start from what its key frame decodes to.
    """

    keep = True

    def __init__(
        self,
        codec: Codec,
        key: Codec,
        initial: Mapping[str, np.ndarray],
        seed: int,
        versions: ModelStore,
        *,
        shared_initial: bool = False,
    ) -> None:
        super().__init__(codec, key, initial, seed, versions)
        self._key: ModelFrames | None = None  # of the initial model
        self._steps: list[ModelFrames] = []  # each from the version of the one before
        self._frames: dict[tuple[bytes, bool], ModelFrames] = {}  # (version held, whether a key frame is needed)
        if not shared_initial:
            self._key, start = make_key(self.target, key, derive(seed, "key", 0))
            self._set_exact(start)
        self._follow()
        self.initial = self.version if shared_initial else b""
        self._key = self._key and replace(self._key, version=self.version)

    def advance(self, wanted: Mapping[str, np.ndarray], round: int) -> None:
        self.round = round
        wanted = representable(wanted, self.layout)
        self._frames.clear()
        if not changed(wanted, self.exact):
            return
        rng = derive(self.seed, "down", round, self.version.hex())
        target = Target(wanted, self.layout, None)
        step, model = make_delta(target, self.exact, self.version, self.codec, rng)
        self._set_exact(model)
        self._follow()
        self._steps.append(replace(step, version=self.version))
        while sum(one.nbytes for one in self._steps) > self.layout.nbytes:
            self._key = None
            del self._steps[0]

    def frames_for(self, held: bytes, *, key: bool = False) -> ModelFrames:
        held = held or self.initial
        if (held, key) not in self._frames:
            self._frames[held, key] = self._make_frames(held, key=key)
        return self._frames[held, key]

    def starts_from(self, version: bytes) -> bool:
        return version == self.version or any(step.base == version for step in self._steps)

    def save(self) -> dict[str, Any]:
        key = None if self._key is None else list(astuple(self._key))
        return {"w": self.exact, "key": key, "steps": [list(astuple(step)) for step in self._steps]}

    def resume(self, saved: Mapping[str, Any], round: int) -> None:
        self.round = round
        self._frames.clear()
        self._set_exact(saved["w"])
        self._follow()
        self._key = None if saved["key"] is None else ModelFrames(*saved["key"])
        self._steps = [ModelFrames(*step) for step in saved["steps"]]

    def _follow(self) -> None:
        """Let the nodes' model be the exact one."""
        self.model = self.exact
        self.version = self.versions.put(self.model)

    def _make_frames(self, held: bytes, *, key: bool) -> ModelFrames:
        if not key and held == self.version:
            return ModelFrames((), (), (), version=held)
        if not key and self.starts_from(held):
            first = next(place for place, step in enumerate(self._steps) if step.base == held)
            return _joined(self._steps[first:])
        whole = replace(make_key(self.target, parse(LOSSLESS), derive(self.seed))[0], version=self.version)
        if self._key is None:
            return whole
        return min(_joined([self._key, *self._steps]), whole, key=lambda frames: frames.nbytes)


def _joined(steps: Iterable[ModelFrames]) -> ModelFrames:
    """Return the frames of all steps, in order."""
    parts = list(steps)
    return ModelFrames(
        frames=tuple(frame for part in parts for frame in part.frames),
        specs=tuple(spec for part in parts for spec in part.specs),
        tensors=tuple(mask for part in parts for mask in part.tensors),
        base=parts[0].base,
        version=parts[-1].version,
    )
