"""One node's reply to a training message: what it may be, what it weighs, and how it is decoded."""

import logging
import math
from dataclasses import dataclass

import numpy as np
from flwr.app import Message

from fedpress.common.logs import LOGGER
from fedpress.compression import Codec, FrameError, Layout, Update
from fedpress.compression.submodels import Slice
from fedpress.compression.updates import apply, difference
from fedpress.compression.weight_masks import Live
from fedpress.protocol.messages import FRAME_STYPE, LOSSLESS
from fedpress.server.downlink.model_store import Versions

_log = logging.getLogger(LOGGER)


@dataclass(frozen=True)
class Bounds:
    """What an update may be: whoever sends more is refused."""

    norm: float = math.inf  # L2, of the floating-point tensors together
    examples: float = 1e9  # a node that claims more would outvote all others
    clip: float = math.inf  # an update of a larger L2 norm is scaled down to it


@dataclass(frozen=True)
class Work:
    """How long a node worked for its reply, seconds, as it says."""

    training: float = 0.0  # in its app
    coding: float = 0.0  # decoding the model and encoding the update


@dataclass(eq=False)
class Vote:
    """One node's reply to a training message, its model still a frame."""

    node: str
    weight: float
    frame: bytes
    reply: Message
    exact: Update  # w, or its node's part of it: the model that the update is to be added to
    versions: Versions  # holds the model that the node started from, if that is not w
    live: Live  # the weights of w, and of every model that nodes start from in this round, that are live
    layout: Layout
    part: Layout  # of the tensors that the frame holds
    codec: Codec
    version: bytes  # name of the model that the node started from
    before: bytes  # name of the model that it held before that; empty if that is not known at both ends
    bounds: Bounds
    work: Work
    group: str = ""  # of its node
    place: Slice | None = None  # where its model lies in the server's; None if it is all of it

    def decode(self) -> Update:
        """Return w plus the node's update; raise FrameError if it does not decode to tensors within the bounds."""
        whole = str(self.codec) == LOSSLESS
        base = b"" if whole else self.version
        sent = self.codec.decode(self.frame, self.live.part(self.part), side=self._side(), base=base)
        sent = self.live.put(sent, self.part)
        if whole and self.version in self.versions:  # what changed is counted from where the node stood
            sent, whole = difference(sent, self.versions.get(self.version), self.part), False
        update = difference(sent, self.exact, self.part) if whole else sent
        with np.errstate(over="ignore"):
            square = sum(float(np.square(update[t.name], dtype=np.float64).sum()) for t in self.part.floating)
            norm = math.sqrt(square)
            if norm > self.bounds.norm:
                raise FrameError(f"its update's norm is {norm:.6g}, at most {self.bounds.norm:.6g} is taken")
            if norm > self.bounds.clip:
                share = np.float32(self.bounds.clip / norm)
                update |= {tensor.name: update[tensor.name] * share for tensor in self.part.floating}
                whole = False
            model = {**self.exact, **sent} if whole else apply(self.exact, update, self.layout)
            for tensor in self.part.floating:  # in float32, to which the server will round it, whatever its width
                if not np.isfinite(np.asarray(model[tensor.name], np.float32)).all():
                    raise FrameError(f"tensor {tensor.name!r} is not finite in float32")
        return model

    def _side(self) -> Update | None:
        """Return the delta that the node was sent last: what changed there is likely to change again."""
        if self.before not in self.versions or self.version not in self.versions:
            return None
        return self.live.take(difference(self.versions.get(self.version), self.versions.get(self.before), self.part))


def read_weight(reply: Message, weighted_by: str, bounds: Bounds) -> float:
    """Return how much a reply weighs; raise FrameError if it does not say, or nothing that can be."""
    metrics = list(reply.content.metric_records.values())
    if len(metrics) != 1:
        raise FrameError(f"a reply holds one MetricRecord, got {len(metrics)}")
    weight = metrics[0].get(weighted_by)
    if not isinstance(weight, int | float) or not 0 < weight <= bounds.examples:
        raise FrameError(f"{weighted_by} is above 0 and at most {bounds.examples:g}, got {weight!r}")
    return float(weight)


def read_frame_of(reply: Message) -> bytes:
    """Return the frame of a reply; raise FrameError if it does not hold one, and no other array."""
    arrays = [array for record in reply.content.array_records.values() for array in record.values()]
    if len(arrays) != 1 or arrays[0].stype != FRAME_STYPE:
        raise FrameError("a reply holds one frame and no other array")
    return arrays[0].data


def refuse(number: int, node: str, error: Exception) -> None:
    """Log that a node's reply does not count."""
    _log.warning("round %d: node %s: its reply is refused: %s", number, node, error)
