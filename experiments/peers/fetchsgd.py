"""FetchSGD, Rothchild et al. 2020, https://arxiv.org/abs/2007.07682: updates as count sketches, memory on the server.

Sketches are linear: the server adds nodes' sketches, keeps momentum and what was not sent yet as sketches, and moves
the model by the largest values that it finds there. Nodes keep the model alone, and receive the values that changed.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fedpress.common.rng import derive
from fedpress.compression.entropy import bitmask_coder
from fedpress.compression.frame import ByteReader
from fedpress.settings import RunSettings
from fedpress.simulations.workloads.task import WorkloadTask
from peers.federation import Method, Reply, State, Trained, Vector, apps, mean

ROWS, SHARE = 5, 0.02  # of a sketch: rows, and columns over parameters, a tenth of the bytes together
KEPT = 0.002  # values that change in a round, over parameters: a tenth of a row's columns, for others hide in noise
MOMENTUM = 0.9


class Sketch:
    """A count sketch of vectors of one size, (ROWS, columns), with the same hashes at all ends."""

    def __init__(self, size: int, seed: int) -> None:
        rng = derive(seed, "sketch")
        self.columns = max(1, int(SHARE * size))
        self._places = rng.integers(self.columns, size=(ROWS, size))
        self._signs = rng.choice(np.array([-1, 1], np.float32), (ROWS, size))

    def of(self, vector: Vector) -> Vector:
        """Return the sketch of `vector`, (ROWS, columns): each value is added to one cell a row, with a random sign."""
        signed = self._signs * vector
        rows = zip(self._places, signed, strict=True)
        counts = [np.bincount(places, row, minlength=self.columns) for places, row in rows]
        return np.array(counts, np.float32)

    def estimates(self, sketch: Vector) -> NDArray[np.float32]:
        """Return each row's estimate of each value, (ROWS, n); each is unbiased."""
        return self._signs * np.take_along_axis(sketch, self._places, 1)

    def decode(self, sketch: Vector) -> Vector:
        """Return the medians of the rows' estimates, (n,)."""
        medians: Vector = np.median(self.estimates(sketch), axis=0).astype(np.float32)
        return medians


class FetchSgd(Method):
    """The method, on the updates of local training in place of single gradients."""

    def __init__(self, settings: RunSettings, work: WorkloadTask) -> None:
        super().__init__(settings, work)
        self._model, self._held = self.initial, dict[int, Vector]()
        self._momentum = self._error = self.sketch.of(np.zeros_like(self.initial))

    @cached_property
    def sketch(self) -> Sketch:
        """The hashes that all ends share."""
        return Sketch(self.layout.size, self.seed)

    def request(self, node: int, round: int) -> bytes:
        held = self._held.get(node, self.initial)
        self._held[node] = self._model
        return encode_changes(self._model, held)

    def train(self, node: int, round: int, frame: bytes, state: State) -> Trained:
        model = decode_changes(frame, state.get("model", self.initial))
        trained, metrics = self.fit_weights(model, node, round)
        return Trained(self.sketch.of(trained - model).astype("<f4").tobytes(), metrics, {"model": model})

    def aggregate(self, replies: Sequence[Reply], round: int) -> None:
        sketches = [np.frombuffer(reply.frame, "<f4").reshape(ROWS, -1) for reply in replies]
        self._momentum = MOMENTUM * self._momentum + (1 - MOMENTUM) * mean(replies, sketches)
        self._error = self._error + self._momentum
        found = self.sketch.decode(self._error)
        count = max(1, int(KEPT * found.size))
        kept = np.zeros_like(found)
        largest = np.argpartition(np.abs(found), -count)[-count:]
        kept[largest] = found[largest]
        self._error = self._error - self.sketch.of(kept)
        self._model = self._model + kept

    def weights(self) -> Vector:
        return self._model


def encode_changes(new: Vector, old: Vector) -> bytes:
    """Return the values of `new` that differ from `old`, float32, after a mask of them."""
    mask = new != old
    positions = bitmask_coder.encode(mask, np.zeros(mask.size, np.uint8)) if mask.any() else b""
    return len(positions).to_bytes(4, "little") + positions + new[mask].astype("<f4").tobytes()


def decode_changes(frame: bytes, old: Vector) -> Vector:
    """Return the vector that `encode_changes` was given."""
    end = 4 + int.from_bytes(frame[:4], "little")
    new = old.copy()
    if end > 4:
        mask = bitmask_coder.decode(ByteReader(frame[4:end]), np.zeros(old.size, np.uint8))
        new[mask] = np.frombuffer(frame[end:], "<f4")
    return new


server_app, client_app = apps(FetchSgd)
