"""CAFe, Ortega et al. 2025, https://arxiv.org/abs/2512.22623: nodes send how their update differs from the last mean.

The aggregated update of the round before is the control variate of all nodes, so that a biased codec, the setting `up`,
needs no memory on nodes. Nodes receive that update besides the model; both directions are counted.
"""

from collections.abc import Sequence

import numpy as np

from fedpress.common.rng import derive
from fedpress.compression.frame import shorten
from fedpress.settings import RunSettings
from fedpress.settings.codecs import up_codec
from fedpress.simulations.workloads.task import WorkloadTask
from peers.federation import Downlink, Method, Reply, State, Trained, Vector, apps, mean


class Cafe(Method):
    """The method, with the codecs that the settings `up` and `down` name."""

    def __init__(self, settings: RunSettings, work: WorkloadTask) -> None:
        super().__init__(settings, work)
        self.codec = up_codec(self.settings.server.up)
        self._model, self.last = self.initial, np.zeros_like(self.initial)
        self._models, self.updates = Downlink(self, self.initial), Downlink(self, np.zeros_like(self.initial))

    def request(self, node: int, round: int) -> bytes:
        model = self._models.frame(node, self._model, round)
        return len(model).to_bytes(4, "little") + model + self.updates.frame(node, self.last, round)

    def train(self, node: int, round: int, frame: bytes, state: State) -> Trained:
        end = 4 + int.from_bytes(frame[:4], "little")
        model = self._models.read(frame[4:end], state)
        variate = {name.removeprefix("variate."): array for name, array in state.items() if name.startswith("variate.")}
        last = self.updates.read(frame[end:], variate)
        trained, metrics = self.fit_weights(model, node, round)
        sent = self.encode(trained - model, last, derive(self.seed, "cafe", round, node))
        return Trained(sent, metrics, {**state, **{f"variate.{name}": array for name, array in variate.items()}})

    def encode(self, change: Vector, last: Vector, rng: np.random.Generator) -> bytes:
        """Return the frame of an update, given the last mean."""
        difference = self.tensors(change - last)
        return shorten(self.codec.encode(difference, self.codec.init(self.layout), rng)[0])

    def aggregate(self, replies: Sequence[Reply], round: int) -> None:
        updates = [
            self.updates.held(reply.node, self.last) + self.vector(self.codec.decode(reply.frame, self.layout))
            for reply in replies
        ]
        self.last = mean(replies, updates)
        self._model = self._model + self.last

    def weights(self) -> Vector:
        return self._model


server_app, client_app = apps(Cafe)
