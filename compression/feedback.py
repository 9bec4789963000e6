"""Error feedback, Karimireddy et al. 2019, https://arxiv.org/abs/1901.09847 (and Seide et al. 2014)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedpress.compression.codec import Codec, State
from fedpress.compression.errors import UpdateError
from fedpress.compression.layout import Layout, Update
from fedpress.compression.pipeline import Pipeline


@dataclass(frozen=True)
class ErrorFeedback(Codec):
    """`ef | ...`: what a frame leaves out is added to the next update.

    State: {"residual": float32 (n,)} and what the wrapped codec remembers. In every round sent + residual == update +
    residual of the round before, to float32's precision.
    """

    inner: Pipeline

    def __str__(self) -> str:
        return str(self.inner)

    @property
    def stateful(self) -> bool:
        return True

    def init(self, layout: Layout) -> State:
        return {**self.inner.init(layout), "residual": np.zeros(layout.size, np.float32)}

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
        wanted = add(values, remembered(state, "residual", layout))
        frame, sent, after = self.inner.press(wanted, exact, layout, state, rng, base=base)
        return frame, {**after, "residual": wanted - sent}

    def decode(self, frame: bytes, layout: Layout, *, side: Update | None = None, base: bytes | None = None) -> Update:
        return self.inner.decode(frame, layout, side=side, base=base)

    def lost(self, before: State, update: Update) -> State:
        layout = Layout.of(update)
        wanted = add(layout.flatten(update)[0], remembered(before, "residual", layout))
        return {**before, "residual": wanted}


def remembered(state: State, key: str, layout: Layout) -> NDArray[np.float32]:
    """Return a memory of one float32 for each value, (n,); raise UpdateError if it is not of this layout."""
    array = state.get(key)
    if array is None or array.shape != (layout.size,):
        raise UpdateError(f"the state is not of this layout: a {key} of {layout.size} values is due")
    return array


def add(update: NDArray[np.float32], memory: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the sum, float32 (n,); raise UpdateError if it is beyond float32."""
    with np.errstate(over="ignore"):
        wanted = update + memory
    if not np.isfinite(wanted).all():
        raise UpdateError("the update and what earlier ones left out are together beyond float32")
    return wanted
