"""FedPM, Isik et al. 2023, https://arxiv.org/abs/2209.15328: random weights stay as they are, their masks are trained.

Each weight is kept with a probability. A node trains the probabilities' logits through sampled masks, samples a mask of
them and sends it, entropy-coded; the server's probabilities are the modes of Beta distributions that count masks.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from fedpress.common.rng import derive
from fedpress.compression.entropy import bitmask_coder
from fedpress.compression.frame import ByteReader
from fedpress.settings import RunSettings
from fedpress.simulations.workloads.task import WorkloadTask
from peers.federation import Downlink, Method, Reply, State, Trained, Vector, apps

LEAST = 0.02  # probabilities are kept so far from 0 and 1 that logits can be trained


class MaskedModel(nn.Module):
    """A model whose fixed weights are multiplied by masks, sampled anew in each step from trained logits."""

    def __init__(self, body: nn.Module, weights: dict[str, Tensor], logits: dict[str, Tensor]) -> None:
        super().__init__()
        self._body, self._weights = [body], weights  # not as a submodule: its own weights are not trained
        self._names = list(logits)
        self.logits = nn.ParameterList(nn.Parameter(logit) for logit in logits.values())

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores of a sampled model; gradients pass through the sampling."""
        weights = {}
        for name, logit in zip(self._names, self.logits, strict=True):
            probability = torch.sigmoid(logit)
            mask = torch.bernoulli(probability.detach())
            weights[name] = self._weights[name] * (mask + probability - probability.detach())
        scores: Tensor = functional_call(self._body[0], weights, (x,))
        return scores


def encode(mask: NDArray[np.bool_]) -> bytes:
    """Return a mask in about its entropy."""
    return bitmask_coder.encode(mask, np.zeros(mask.size, np.uint8))


def decode(frame: bytes, size: int) -> NDArray[np.bool_]:
    """Return the mask of a frame."""
    return bitmask_coder.decode(ByteReader(frame), np.zeros(size, np.uint8))


class MaskTraining(Method):
    """Trained masks of random weights, with probabilities down as the setting `down` has it: float32 in the paper."""

    def __init__(self, settings: RunSettings, work: WorkloadTask) -> None:
        super().__init__(settings, work)
        self.fixed = self._signed_constants()
        self.theta = np.full(self.layout.size, 0.5, np.float32)
        self._ones = np.zeros(self.layout.size)  # of the masks since the last reset
        self._masks = 0
        self.downlink = Downlink(self, self.theta)
        self._resets = math.ceil(self.settings.clients / self.settings.server.per_round)  # in rounds

    def request(self, node: int, round: int) -> bytes:
        return self.downlink.frame(node, self.theta, round)

    def train(self, node: int, round: int, frame: bytes, state: State) -> Trained:
        theta = np.clip(self.downlink.read(frame, state), LEAST, 1 - LEAST)
        logits = np.log(theta / (1 - theta))
        weights, scores = (
            {name: torch.from_numpy(array) for name, array in self.tensors(vector).items()}
            for vector in (self.fixed, logits)
        )
        model = MaskedModel(self.work.model(), weights, scores)
        metrics = self.fit(model, node, round)
        trained = np.concatenate([torch.sigmoid(logit.detach()).numpy().ravel() for logit in model.logits])
        rng = derive(self.seed, "fedpm", round, node)
        return Trained(self.encode(trained, theta, rng, round, node), metrics, state)

    @abstractmethod
    def encode(self, local: Vector, known: Vector, rng: np.random.Generator, round: int, node: int) -> bytes:
        """Return a frame of a mask with probabilities `local`, where both ends have `known`."""

    @abstractmethod
    def decode(self, reply: Reply, round: int) -> NDArray[np.bool_]:
        """Return the mask of a reply."""

    def aggregate(self, replies: Sequence[Reply], round: int) -> None:
        if (round - 1) % self._resets == 0:
            self._ones[:], self._masks = 0, 0
        for reply in replies:
            self._ones += self.decode(reply, round)
        self._masks += len(replies)
        self.theta = (self._ones / self._masks).astype(np.float32)  # the mode of Beta(1 + ones, 1 + zeros)

    def weights(self) -> Vector:
        mask = derive(self.seed, "mask").random(self.layout.size, np.float32) < self.theta
        return self.fixed * mask

    def _signed_constants(self) -> Vector:
        """Return the random weights: plus or minus the standard deviation of Kaiming's initialisation; no biases."""
        rng = derive(self.seed, "signs")
        signs = {}
        for tensor in self.layout.tensors:
            fan_in = math.prod(tensor.shape[1:])
            scale = math.sqrt(2 / fan_in) if len(tensor.shape) > 1 else 0.0
            signs[tensor.name] = scale * rng.choice(np.array([-1, 1], np.float32), tensor.shape)
        return self.vector({name: np.asarray(array, np.float32) for name, array in signs.items()})


class FedPM(MaskTraining):
    """The method: masks in about their entropy."""

    def encode(self, local: Vector, known: Vector, rng: np.random.Generator, round: int, node: int) -> bytes:
        return encode(rng.random(local.size, np.float32) < local)

    def decode(self, reply: Reply, round: int) -> NDArray[np.bool_]:
        return decode(reply.frame, self.layout.size)


server_app, client_app = apps(FedPM)
