"""Error feedback, Karimireddy et al. 2019, https://arxiv.org/abs/1901.09847 (and Seide et al. 2014)."""

from dataclasses import dataclass

import numpy as np

from fedpress.compression.codec import Codec, State
from fedpress.compression.errors import UpdateError
from fedpress.compression.layout import Layout, Update
from fedpress.compression.pipeline import Pipeline


@dataclass(frozen=True)
class ErrorFeedback(Codec):
    """`ef | ...`: what a frame leaves out is added to the next update.

    State: {"residual": float32 (n,)}. In every round sent + residual == update + residual of the round before, to
    float32's precision.
    """

    inner: Pipeline

    def __str__(self) -> str:
        return str(self.inner)

    @property
    def stateful(self) -> bool:
        return True

    def init(self, layout: Layout) -> State:
        return {"residual": np.zeros(layout.size, np.float32)}

    def encode(
        self,
        update: Update,
        state: State,
        rng: np.random.Generator,
        *,
        side: Update | None = None,
        base: bytes = b"",
    ) -> tuple[bytes, State]:
        layout = Layout.of(update)
        values, exact = layout.flatten(update)
        wanted = values + _residual(state, layout)
        frame, sent = self.inner.press(wanted, exact, layout, rng, base=base)
        return frame, {"residual": wanted - sent}

    def decode(self, frame: bytes, layout: Layout, *, side: Update | None = None, base: bytes | None = None) -> Update:
        return self.inner.decode(frame, layout, side=side, base=base)

    def lost(self, before: State, update: Update) -> State:
        layout = Layout.of(update)
        return {"residual": layout.flatten(update)[0] + _residual(before, layout)}


def _residual(state: State, layout: Layout) -> np.ndarray:
    residual = state.get("residual")
    if residual is None or residual.shape != (layout.size,):
        raise UpdateError(f"the state is not of this layout: a residual of {layout.size} values is due")
    return residual
