"""Presets: published methods under their names."""

from dataclasses import dataclass

import numpy as np

from fedpress.compression.codec import Codec, State, Streams
from fedpress.compression.layout import Layout, Update


@dataclass(frozen=True)
class Preset(Codec):
    """A codec, `inner`, under another name, `text`, such as "stc(0.01)"; frames hold the spec of `inner`."""

    text: str
    inner: Codec

    def __str__(self) -> str:
        return self.text

    @property
    def stateful(self) -> bool:
        return self.inner.stateful

    @property
    def subspace_share(self) -> float:
        return self.inner.subspace_share

    def init(self, layout: Layout) -> State:
        return self.inner.init(layout)

    def encode(
        self,
        update: Update,
        state: State,
        rng: np.random.Generator,
        *,
        side: Update | None = None,
        base: bytes = b"",
    ) -> tuple[bytes, State]:
        return self.inner.encode(update, state, rng, side=side, base=base)

    def encode_decoded(self, update: Update, rng: np.random.Generator, *, base: bytes = b"") -> tuple[bytes, Update]:
        return self.inner.encode_decoded(update, rng, base=base)

    def decode(self, frame: bytes, layout: Layout, *, side: Update | None = None, base: bytes | None = None) -> Update:
        return self.inner.decode(frame, layout, side=side, base=base)

    def aimed(self, **target: float | int) -> Codec:
        return self.inner.aimed(**target)

    def uncoded(self, streams: Streams, layout: Layout) -> Streams:
        return self.inner.uncoded(streams, layout)

    def lost(self, before: State, update: Update) -> State:
        return self.inner.lost(before, update)
