"""One node's reply to a training message: its limits, its weight, and how it is decoded."""

import logging
import math
from dataclasses import dataclass

import numpy as np
from flwr.app import Message

from fedpress.common.logs import LOGGER, clean
from fedpress.common.settings import require
from fedpress.compression import Codec, FrameError, Layout, Update
from fedpress.compression.submodels import Slice
from fedpress.compression.updates import apply, difference
from fedpress.compression.weight_masks import WeightMasks
from fedpress.protocol.arrays import holds_frame, read_frame_record
from fedpress.protocol.update_frames import UpdateCoding
from fedpress.server.downlink.model_store import ModelStore

_log = logging.getLogger(LOGGER)


@dataclass(frozen=True)
class FederationLimits:
    """Limits of the replies of nodes, and of the storage for them.

    Raises
    ------
    SettingError
        If a limit is out of range.

    Examples
    --------
    >>> FederationLimits(min_replies=2, max_norm=10.0).min_replies
    2
    """

    min_replies: int = 1  # a round in which fewer replies count is repeated, at most twice
    max_norm: float = math.inf  # an update of a larger L2 norm, over all floating-point tensors, is refused
    max_examples: float = 1e18  # a reply with a larger weight is refused: by default, more than can be counted
    stored_bytes: int = 1 << 34  # of nodes' models on disk; a node whose model is no longer stored is sent a key frame

    def __post_init__(self) -> None:
        require(self.min_replies >= 1, "min_replies", "at least 1", self.min_replies)
        require(self.max_norm > 0, "max_norm", "above 0", self.max_norm)
        require(self.max_examples > 0, "max_examples", "above 0", self.max_examples)
        require(self.stored_bytes >= 0, "stored_bytes", "at least 0", self.stored_bytes)


@dataclass(frozen=True)
class UpdateRules:
    """Rules for reading a round's replies."""

    weighted_by: str = "num-examples"  # name of the metric that is a reply's weight; empty if replies need none
    limits: FederationLimits = FederationLimits()
    clip_norm: float = math.inf  # an update of a larger L2 norm is scaled down to it


@dataclass(frozen=True)
class WorkTime:
    """Time that a node reports for its reply, in seconds."""

    training: float = 0.0  # in its app
    coding: float = 0.0  # decoding the model and encoding the update


@dataclass(frozen=True)
class EncodedUpdate:
    """An update as its node sent it."""

    frame: bytes
    codec: Codec  # of the frame
    part: Layout  # of the tensors that the frame holds
    version: bytes  # of the model that the node started from, 8 bytes
    before: bytes = b""  # version of the model that it held before; empty if one end lacks it


@dataclass(frozen=True, eq=False)
class NodeModel:
    """The server's model as one node has it: the node's update is added to it."""

    exact: Update  # w, or the node's part of it
    layout: Layout  # of `exact`
    masks: WeightMasks  # the weights of w, and of every model that nodes start from in this round, that are not pruned
    versions: ModelStore  # the models that nodes started from
    group: str = ""  # the node's group
    place: Slice | None = None  # where `exact` lies in the server's model; None if it is all of it


@dataclass(frozen=True, eq=False)
class ClientUpdate:
    """One node's reply to a training message, its update still encoded."""

    node: str  # its name
    weight: float  # by which it is averaged
    message: Message  # the reply, without fedpress's records
    encoded: EncodedUpdate
    base: NodeModel
    rules: UpdateRules = UpdateRules()
    time: WorkTime = WorkTime()

    def decode(self) -> Update:
        """Return w plus the node's update.

        Raises
        ------
        FrameError
            If it does not decode to tensors within the limits.
        """
        encoded, base, part, version = self.encoded, self.base, self.encoded.part, self.encoded.version
        coding = UpdateCoding(encoded.codec, part, base.masks, version, self._delta())
        sent, whole = coding.decode(encoded.frame), coding.whole
        if whole and version in base.versions:  # the update starts from the node's model
            sent, whole = difference(sent, base.versions.get(version), part), False
        update = difference(sent, base.exact, part) if whole else sent
        with np.errstate(over="ignore"):
            norm = math.sqrt(sum(float(np.square(update[t.name], dtype=np.float64).sum()) for t in part.floating))
            if norm > self.rules.limits.max_norm:
                raise FrameError(f"its update's norm must be at most {self.rules.limits.max_norm:.6g}, got {norm:.6g}")
            if norm > self.rules.clip_norm:
                share = np.float32(self.rules.clip_norm / norm)
                update |= {tensor.name: update[tensor.name] * share for tensor in part.floating}
                whole = False
            model = {**base.exact, **sent} if whole else apply(base.exact, update, base.layout)
            for tensor in part.floating:  # in float32, to which the server rounds tensors of any width
                if not np.isfinite(np.asarray(model[tensor.name], np.float32)).all():
                    raise FrameError(f"tensor {tensor.name!r} must be finite in float32")
        return model

    def _delta(self) -> Update | None:
        """Return the delta that the node was sent last, which predicts where its update is large."""
        versions, part = self.base.versions, self.encoded.part
        before, version = self.encoded.before, self.encoded.version
        if before not in versions or version not in versions:
            return None
        return difference(versions.get(version), versions.get(before), part)


def read_weight(reply: Message, weighted_by: str, limits: FederationLimits) -> float:
    """Return the weight of a reply, the metric `weighted_by`; raise FrameError if it is missing or out of range.

    If `weighted_by` is empty, replies need no weight.
    """
    if not weighted_by:
        return 1.0
    metrics = list(reply.content.metric_records.values())
    if len(metrics) != 1:
        raise FrameError(f"a reply must hold one MetricRecord, got {len(metrics)}")
    weight = metrics[0].get(weighted_by)
    if not isinstance(weight, int | float) or not 0 < weight <= limits.max_examples:
        raise FrameError(f"{weighted_by} must be above 0 and at most {limits.max_examples:g}, got {weight!r}")
    return float(weight)


def read_frame_of(reply: Message) -> tuple[str, bytes]:
    """Return a reply's frame, and the name of its record; raise FrameError if it does not hold exactly one.

    Further ArrayRecords are the app's own.
    """
    found = [(name, read_frame_record(r)) for name, r in reply.content.array_records.items() if holds_frame(r)]
    if len(found) != 1:
        raise FrameError(f"a reply must hold one frame, got {len(found)}")
    return found[0]


def log_refusal(number: int, node: str, error: Exception) -> str:
    """Log that a node's reply does not count; return the node and the reason, as safe to print."""
    _log.warning("round %d: node %s: its reply is refused: %s", number, clean(node), clean(error))
    return f"node {clean(node)}: {clean(error)}"
