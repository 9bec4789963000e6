"""Updates within a random subspace that both ends know, Konečný et al. 2016, https://arxiv.org/abs/1610.05492."""

from dataclasses import dataclass

import numpy as np

from fedpress.common.errors import SpecError
from fedpress.compression.codec import State, Streams
from fedpress.compression.kernels.shared_subspace import subspace
from fedpress.compression.layout import Layout, TensorSpec, Update
from fedpress.compression.wrappers.base import Wrapper


@dataclass(frozen=True)
class SharedSubspace(Wrapper):
    """Send the coordinates of each tensor in a random subspace: `subspace(share) | ...`.

    A tensor of n values has ``share * n`` coordinates, at least 256. What lies outside of the subspace is lost, so it
    is for updates of nodes that train within it, with the setting `training.subspace`, and for deltas of their models.
    The same directions serve all nodes, in all rounds. Its state is that of `inner`.

    Parameters
    ----------
    share : float
        Dimensions over values, above 0 and below 1.
    """

    share: float

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise SpecError(f"subspace's share must be above 0 and below 1, got {self.share}")

    @property
    def stateful(self) -> bool:
        return self.inner.stateful

    @property
    def subspace_share(self) -> float:
        return self.share

    def init(self, layout: Layout) -> State:
        return self.inner.init(self._reduced(layout))

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
        layout.flatten(update)  # raises UpdateError if a value is not finite
        known = None if side is None else self._project(side, layout)
        return self.inner.encode(self._project(update, layout), state, rng, side=known, base=base)

    def decode(self, frame: bytes, layout: Layout, *, side: Update | None = None, base: bytes | None = None) -> Update:
        known = None if side is None else self._project(side, layout)
        decoded = self.inner.decode(frame, self._reduced(layout), side=known, base=base)
        for tensor in layout.lossy:
            if found := subspace(tensor.name, tensor.size, self.share):
                values, dtype = found.place(decoded[tensor.name]), np.dtype(tensor.dtype)
                if dtype.itemsize < 4:  # an approximation may be beyond the range of the dtype
                    np.clip(values, -np.finfo(dtype).max, np.finfo(dtype).max, out=values)
                decoded[tensor.name] = values.astype(dtype, copy=False).reshape(tensor.shape)
        return decoded

    def uncoded(self, streams: Streams, layout: Layout) -> Streams:
        return self.inner.uncoded(streams, self._reduced(layout))

    def lost(self, before: State, update: Update) -> State:
        return self.inner.lost(before, self._project(update, Layout.of(update)))

    def _reduced(self, layout: Layout) -> Layout:
        """Return the layout of the coordinates."""
        return Layout(tuple(self._coordinates(tensor) for tensor in layout.tensors))

    def _coordinates(self, tensor: TensorSpec) -> TensorSpec:
        found = subspace(tensor.name, tensor.size, self.share) if tensor.lossy else None
        return TensorSpec(tensor.name, (found.dimensions,), "float32") if found else tensor

    def _project(self, update: Update, layout: Layout) -> Update:
        """Return the coordinates of an update."""
        reduced = dict(update)
        for tensor in layout.lossy:
            if found := subspace(tensor.name, tensor.size, self.share):
                reduced[tensor.name] = found.project(np.asarray(update[tensor.name], np.float32).reshape(-1))
        return reduced
