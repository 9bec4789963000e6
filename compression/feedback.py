"""Error feedback, Karimireddy et al. 2019, https://arxiv.org/abs/1901.09847 (and Seide et al. 2014)."""

from dataclasses import dataclass

import numpy as np

from fedpress.compression.codec import State
from fedpress.compression.layout import Layout, Update
from fedpress.compression.wrapper import Wrapper, add, remembered


@dataclass(frozen=True)
class ErrorFeedback(Wrapper):
    """`ef | ...`: what a frame leaves out is added to the next update.

    State: {"residual": float32 (n,)} and what the wrapped codec remembers. In every round sent + residual == update +
    residual of the round before, to float32's precision.
    """

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
        frame, sent, after = self.inner.press(wanted, exact, layout, state, rng, base=base, side=side)
        return frame, {**after, "residual": wanted - sent}

    def lost(self, before: State, update: Update) -> State:
        layout = Layout.of(update)
        wanted = add(layout.flatten(update)[0], remembered(before, "residual", layout))
        return {**before, "residual": wanted}
