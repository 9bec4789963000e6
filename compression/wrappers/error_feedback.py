"""Error feedback, Karimireddy et al. 2019, https://arxiv.org/abs/1901.09847 (and Seide et al. 2014).

With decay: ECQ-SGD, Wu et al. 2018, https://arxiv.org/abs/1806.08054.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedpress.common.errors import SpecError
from fedpress.compression.codec import State
from fedpress.compression.layout import Layout, Update
from fedpress.compression.wrappers.base import Wrapper, add, state_array, subtract


@dataclass(frozen=True)
class ErrorFeedback(Wrapper):
    """Add the residual, the part of earlier updates that frames left out, to the next update: `ef | ...`.

    State: {"residual": float32 (n,)} and the state of `inner`. In every round sent + residual == update + residual of
    the round before, to float32's precision.

    With `ef(decay) | ...` the residual is multiplied by `decay` in (0, 1] before it is added: values that are left out
    repeatedly in the same direction are still sent, noise decays. That takes fewer bytes if nodes take part seldom.
    """

    decay: float | None = None

    def __post_init__(self) -> None:
        if self.decay is not None and not 0 < self.decay <= 1:
            raise SpecError(f"ef's decay must be in (0, 1], got {self.decay}")

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
        total = self._total(values, state, layout)
        frame, sent, after = self.inner.press(total, exact, layout, state, rng, base=base, side=side)
        return frame, {**after, "residual": subtract(total, sent)}

    def lost(self, before: State, update: Update) -> State:
        layout = Layout.of(update)
        return {**before, "residual": self._total(layout.flatten(update)[0], before, layout)}

    def _total(self, values: NDArray[np.float32], state: State, layout: Layout) -> NDArray[np.float32]:
        residual = state_array(state, "residual", layout)
        return add(values, residual if self.decay is None else np.float32(self.decay) * residual)
