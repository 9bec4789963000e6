"""The round's steps, the same for all nodes, of which a node that was away is sent those that it missed.

After each round the server codes how its model is to change, and takes the decoded step itself: nodes that receive
every step hold the server's exact model. Sending the missed steps is that of Sattler et al. 2019,
https://arxiv.org/abs/1903.02891, section V; here steps are unbiased, and no residual is kept.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import astuple, replace
from typing import Any

import numpy as np

from fedpress.common.rng import derive
from fedpress.compression import Codec, parse
from fedpress.compression.updates import changed, representable
from fedpress.protocol.messages import LOSSLESS, MOST_FRAMES
from fedpress.protocol.model_frames import ModelFrames, Target, make_delta, make_key
from fedpress.server.downlink.downlink import Downlink
from fedpress.server.downlink.model_store import ModelStore

_MOST = MOST_FRAMES - 2  # steps that are kept: key frames, which may precede them, are two


class StepDownlink(Downlink):
    """Steps that the server's model and those of all nodes follow.

    Their error is in `exact` itself, where later rounds correct it, so that it has to be unbiased, and may be large.
    Steps are kept until they take more bytes than the model, or there are too many for a request. A node that cannot
    start from them is sent the whole model, without loss.

    Parameters
    ----------
    codec, initial, seed, versions
        As of `Downlink`.
    key : Codec
        The codec of matrices in the initial model's key frames; unused with `shared_initial`.
    shared_initial : bool
        Whether every node has `initial` before its first message; else all start from what its key frames decode to.
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
        self._start: ModelFrames | None = None  # key frames of the model before the first step that is kept
        self._steps: deque[ModelFrames] = deque()  # one frame each, from the version of the one before
        self._nbytes = 0  # of the steps
        if shared_initial:
            self._follow()
        else:
            start, model = make_key(self.target, key, derive(seed, "key", 0))
            self._set_exact(model)
            self._follow()
            self._start = replace(start, version=self.version)
        self.initial = self.version if shared_initial else b""

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
        self._keep(replace(step, version=self.version))
        while self._nbytes > self.layout.nbytes or len(self._steps) > _MOST:
            self._start = None
            self._nbytes -= self._steps.popleft().nbytes

    def starts_from(self, version: bytes) -> bool:
        return version == self.version or any(step.base == version for step in self._steps)

    def save(self) -> dict[str, Any]:
        steps = self._steps
        return {
            "w": self.exact,
            "start": None if self._start is None else list(astuple(self._start)),
            "frames": np.frombuffer(b"".join(step.data for step in steps), np.uint8),
            "steps": [[step.nbytes, step.specs[0], step.tensors[0], step.base, step.version] for step in steps],
        }

    def resume(self, saved: Mapping[str, Any], round: int) -> None:
        self.round = round
        self._frames.clear()
        self._set_exact(saved["w"])
        self._follow()
        self._start = None if saved["start"] is None else ModelFrames(*saved["start"])
        self._steps.clear()
        self._nbytes, data = 0, saved["frames"].tobytes()
        for nbytes, spec, tensors, base, version in saved["steps"]:
            frame = data[self._nbytes : self._nbytes + nbytes]
            self._keep(ModelFrames((frame,), (spec,), (tensors,), base, version=version))

    def _keep(self, step: ModelFrames) -> None:
        self._steps.append(step)
        self._nbytes += step.nbytes

    def _follow(self) -> None:
        """Set the nodes' model to the exact one."""
        self.model = self.exact
        self.version = self.versions.put(self.model)

    def _make_frames(self, held: bytes, *, key: bool) -> ModelFrames:
        if held == self.version:
            return ModelFrames((), (), (), version=held)
        steps = list(self._steps)
        if held:
            first = next(place for place, step in enumerate(steps) if step.base == held)
            return _joined(steps[first:])
        whole = replace(make_key(self.target, parse(LOSSLESS), derive(self.seed))[0], version=self.version)
        if self._start is None or key:  # a node that asks for key frames may be unable to follow steps
            return whole
        return min(_joined([self._start, *steps]), whole, key=lambda frames: frames.nbytes)


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
