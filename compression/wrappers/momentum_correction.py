"""Deep Gradient Compression, Lin et al. 2018, https://arxiv.org/abs/1712.01887."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedpress.common.errors import SpecError
from fedpress.compression.codec import State
from fedpress.compression.layout import Layout, Update
from fedpress.compression.wrappers.base import Wrapper, add, remembered


@dataclass(frozen=True)
class MomentumCorrection(Wrapper):
    """`dgc(momentum) | ...`: momentum gathers on the device, before compression, and so does what was not sent.

    With the paper's names, u and v: velocity = momentum * velocity + update, residual = residual + velocity, and the
    residual is what `inner` is given. What decodes is taken from it, and where anything was sent the velocity becomes
    zero, so that no old direction is followed further: momentum correction and momentum factor masking.

    State: {"velocity", "residual": float32 (n,)} and what the wrapped codec remembers. In every round sent + residual
    == velocity + residual of the round before, to float32's precision; with momentum 0 this is error feedback.

    The optimizers on both sides are then without momentum: it would count twice. The paper's gradient clipping, warm-up
    and Nesterov momentum belong to training. It chooses what to send in each layer apart (its code sends vectors
    whole); here the sparsifier chooses.
    """

    momentum: float

    def __post_init__(self) -> None:
        if not 0 <= self.momentum < 1:
            raise SpecError(f"dgc has a momentum in [0, 1), got {self.momentum}")

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
        velocity, wanted = self._gather(values, state, layout)
        frame, sent, after = self.inner.press(wanted, exact, layout, state, rng, base=base, side=side)
        velocity[sent != 0] = 0
        return frame, {**after, "velocity": velocity, "residual": wanted - sent}

    def lost(self, before: State, update: Update) -> State:
        layout = Layout.of(update)
        velocity, wanted = self._gather(layout.flatten(update)[0], before, layout)
        return {**before, "velocity": velocity, "residual": wanted}

    def _gather(
        self, values: NDArray[np.float32], state: State, layout: Layout
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the velocity and the residual with this update in them, before anything is sent."""
        velocity = add(values, np.float32(self.momentum) * remembered(state, "velocity", layout))
        return velocity, add(velocity, remembered(state, "residual", layout))
