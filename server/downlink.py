"""The downlink: key frames hold a whole model, delta frames lead from one version to the next.

Borrowed from video coding. Every node may hold another version: it is sent the deltas that it missed, or a key frame,
whichever is fewer bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fedpress.compression import Codec, Layout, SpecError, Update, parse
from fedpress.compression.message import LOSSLESS, apply, difference, representable, version_of
from fedpress.compression.rng import derive


@dataclass(frozen=True)
class Frames:
    """What one node is sent."""

    frames: tuple[bytes, ...]
    version: bytes  # name of the model that they lead to
    key: bool  # whether the first is a key frame

    @property
    def nbytes(self) -> int:
        """Bytes on the way."""
        return sum(map(len, self.frames))


def parse_down(spec: str) -> Codec:
    """Return the codec of deltas that `spec` names; raise SpecError if it has a memory, which would count twice."""
    codec = parse(spec)
    if codec.stateful:
        raise SpecError(
            f"down needs no memory, a delta carries what the last one left out: got {spec!r}, leave out its ef"
        )
    return codec


class Downlink:
    """The versions of the model as nodes can reconstruct it.

    `model` is the newest, v_r. It follows the server's exact model w_r: each delta is coded from v_r to w_{r+1}, so
    what one delta leaves out the next one carries, and there is no residual beside v itself.
    """

    def __init__(self, codec: Codec, initial: Mapping[str, np.ndarray], seed: int) -> None:
        self.codec = codec
        self.layout = Layout.of(dict(initial))
        self._lossless = str(codec) == LOSSLESS
        self._seed = seed
        self._deltas: dict[
            bytes, tuple[bytes, bytes]
        ] = {}  # version -> (the delta that leads on from it, next version)
        self._keys: dict[bytes, bytes] = {}  # version -> its key frame, once somebody needed it
        self._held: dict[str, bytes] = {}  # node -> version it said that it holds
        self._set(dict(initial))

    def _set(self, model: Update) -> None:
        self.model = representable(model, self.layout)
        self.version = version_of(self.model, self.layout)

    @property
    def keep(self) -> bool:
        """Whether nodes are to keep the model as the base of a later delta."""
        return not self._lossless

    def advance(self, wanted: Mapping[str, np.ndarray], round: int) -> None:
        """Go on to the version that follows `wanted`, the server's exact model after `round`."""
        old, delta = self.version, b""
        if not self._lossless:
            update = difference(wanted, self.model, self.layout)
            delta, _ = self.codec.encode(update, {}, derive(self._seed, "down", round), base=old)
        self._keys.clear()
        if not delta or len(delta) >= self.layout.nbytes:
            # A delta that is no smaller than a key frame buys nothing: nodes get the exact model.
            self._deltas.clear()
            self._set(dict(wanted))
            return
        self._set(apply(self.model, self.codec.decode(delta, self.layout), self.layout))
        if self.version != old:
            self._deltas[old] = (delta, self.version)
            self._forget()

    def frames_for(self, node: str, *, key: bool = False) -> Frames:
        """Return the fewest bytes that bring `node` to the newest version; a key frame if `key`."""
        chain = None if key else self._chain(self._held.get(node, b""))
        if chain is not None and sum(map(len, chain)) < self.layout.nbytes:
            return Frames(tuple(chain), self.version, key=False)
        return Frames((self._key(),), self.version, key=True)

    def holds(self, node: str, version: bytes) -> None:
        """Note the version that `node` said it holds; empty if none."""
        self._held[node] = version

    def _key(self) -> bytes:
        if self.version not in self._keys:
            frame, _ = parse(LOSSLESS).encode(self.model, {}, derive(self._seed, "key"))
            self._keys[self.version] = frame
        return self._keys[self.version]

    def _chain(self, version: bytes) -> list[bytes] | None:
        chain = []
        while version != self.version:
            if version not in self._deltas:
                return None
            delta, version = self._deltas[version]
            chain.append(delta)
        return chain

    def _forget(self) -> None:
        """Drop deltas so old that a chain from them would be longer than a key frame."""
        total = 0
        for version, (delta, _) in reversed(list(self._deltas.items())):
            total += len(delta)
            if total >= self.layout.nbytes:
                del self._deltas[version]
