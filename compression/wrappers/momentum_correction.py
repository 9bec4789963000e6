"""Deep Gradient Compression, Lin et al. 2018, https://arxiv.org/abs/1712.01887."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedpress.common.errors import SpecError
from fedpress.compression.codec import State
from fedpress.compression.layout import Layout, Update
from fedpress.compression.wrappers.base import Wrapper, add, state_array, subtract


@dataclass(frozen=True)
class MomentumCorrection(Wrapper):
    """Accumulate momentum and residual on the device, before compression: `dgc(momentum) | ...`.

    With the paper's names, u and v: velocity = momentum * velocity + update, residual = residual + velocity, and
    `inner` is given the residual. The decoded values are subtracted from it, and the velocity of values that were sent
    becomes zero: momentum correction and momentum factor masking.

    State: {"velocity", "residual": float32 (n,)} and the state of `inner`. In every round sent + residual == velocity
    + residual of the round before, to float32's precision; with momentum 0 this is error feedback.

    The optimizers of nodes and server must then have no momentum. The paper's gradient clipping, warm-up and Nesterov
    momentum belong to training. The paper selects values layer by layer; here the sparsifier selects.
    """

    momentum: float

    def __post_init__(self) -> None:
        if not 0 <= self.momentum < 1:
            raise SpecError(f"dgc's momentum must be in [0, 1), got {self.momentum}")

    def init(self, layout: Layout) -> State:
        zeros = np.zeros(layout.size, np.float32)
        return {**self.inner.init(layout), "velocity": zeros, "residual": zeros.copy()}

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
        velocity, total = self._gather(values, state, layout)
        frame, sent, after = self.inner.press(total, exact, layout, state, rng, base=base, side=side)
        velocity[sent != 0] = 0
        return frame, {**after, "velocity": velocity, "residual": subtract(total, sent)}

    def lost(self, before: State, update: Update) -> State:
        layout = Layout.of(update)
        velocity, total = self._gather(layout.flatten(update)[0], before, layout)
        return {**before, "velocity": velocity, "residual": total}

    def _gather(
        self, values: NDArray[np.float32], state: State, layout: Layout
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the velocity and the residual after this update, before it is sent."""
        velocity = add(values, np.float32(self.momentum) * state_array(state, "velocity", layout))
        return velocity, add(velocity, state_array(state, "residual", layout))
