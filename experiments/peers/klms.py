"""KLMS, Isik et al. 2024, https://arxiv.org/abs/2306.12625, on FedPM: masks by minimal random coding.

Both ends know the probabilities that a node started from, and draw the same masks from them, block by block; the node
sends for each block which one it takes, by chance, with the probability that makes it a sample of the trained
probabilities. Indices take about as many bits as the divergence of those from the known ones. Blocks have one size, for
which each has about the divergence that an index can carry, over positions in random order.
"""

import numpy as np
from numpy.typing import NDArray

from fedpress.common.rng import derive
from peers.federation import Reply, Vector, apps
from peers.fedpm import LEAST, MaskTraining

CANDIDATES = 256  # masks of each block: an index is a byte
NATS = 4.0  # divergence of a block, less than log(256) = 5.5, so that some candidate is a likely sample


def divergence(local: Vector, known: Vector) -> float:
    """Return the Kullback-Leibler divergence of masks with probabilities `local` from those with `known`, in nats."""
    q, p = local.astype(np.float64), known.astype(np.float64)
    return float((q * np.log(q / p) + (1 - q) * np.log((1 - q) / (1 - p))).sum())


def candidates(known: Vector, seed: int, *path: int) -> NDArray[np.bool_]:
    """Return the masks, (CANDIDATES, n), that both ends draw for probabilities that both know."""
    return derive(seed, "klms", *path).random((CANDIDATES, known.size), np.float32) < known


def choose(masks: NDArray[np.bool_], local: Vector, known: Vector, rng: np.random.Generator) -> int:
    """Return the number of the mask that is taken as a sample of `local`."""
    one, zero = np.log(local / known), np.log((1 - local) / (1 - known))
    weights = masks @ (one - zero).astype(np.float64)  # log of the ratio of probabilities, but for a constant
    chances = np.exp(weights - weights.max())
    return int(rng.choice(len(masks), p=chances / chances.sum()))


class Klms(MaskTraining):
    """The method."""

    def encode(self, local: Vector, known: Vector, rng: np.random.Generator, round: int, node: int) -> bytes:
        local = np.clip(local, 1e-6, 1 - 1e-6)
        count = max(1, int(np.ceil(divergence(local, known) / NATS)))
        order = self._order(round, node)
        blocks = zip(np.array_split(local[order], count), np.array_split(known[order], count), strict=True)
        chosen = [
            choose(candidates(there, self.seed, round, node, number), here, there, rng)
            for number, (here, there) in enumerate(blocks)
        ]
        return bytes(chosen)

    def decode(self, reply: Reply, round: int) -> NDArray[np.bool_]:
        order = self._order(round, reply.node)
        known = np.clip(self.downlink.held(reply.node, self.theta), LEAST, 1 - LEAST)
        blocks = np.array_split(known[order], len(reply.frame))
        mask = np.empty(order.size, np.bool_)
        mask[order] = np.concatenate(
            [
                candidates(block, self.seed, round, reply.node, number)[index]
                for number, (block, index) in enumerate(zip(blocks, reply.frame, strict=True))
            ]
        )
        return mask

    def _order(self, round: int, node: int) -> NDArray[np.int64]:
        return derive(self.seed, "order", round, node).permutation(self.layout.size)


server_app, client_app = apps(Klms)
