"""One node's reply to a training message: its limits, its weight, and how it is decoded."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from flwr.app import Message

from fedpress.common.logs import LOGGER, clean
from fedpress.common.settings import require
from fedpress.compression import Codec, FrameError, Layout, Update
from fedpress.compression.layout import TensorSpec
from fedpress.compression.submodels import Slice
from fedpress.compression.updates import apply, difference
from fedpress.compression.weight_masks import WeightMasks
from fedpress.protocol.arrays import holds_frame, read_frame_record
from fedpress.protocol.update_frames import UpdateCoding
from fedpress.server.downlink.model_store import ModelStore

_log = logging.getLogger(LOGGER)

_MAX_CLAIM = 2**63  # more than anybody has examples, and a sum of such claims is finite


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

    min_replies: int = 1  # a round in which fewer replies count is repeated
    over_selection: float = 1.0  # nodes that are asked for each that the strategy samples, if there are as many
    max_norm: float = math.inf  # an update of a larger L2 norm, over all floating-point tensors, is scaled down to it
    norm_multiple: float = 3.0  # an update is scaled down to this multiple of the usual norm; infinity for no bound
    weight_multiple: float = 3.0  # a reply weighs at most this multiple of the round's median; infinity for no bound
    stored_bytes: int = 1 << 34  # of nodes' models on disk; a node whose model is no longer stored is sent a key frame

    def __post_init__(self) -> None:
        require(self.min_replies >= 1, "min_replies", "at least 1", self.min_replies)
        require(self.over_selection >= 1, "over_selection", "at least 1", self.over_selection)
        require(self.max_norm > 0, "max_norm", "above 0", self.max_norm)
        require(self.norm_multiple >= 1, "norm_multiple", "at least 1", self.norm_multiple)
        require(self.weight_multiple >= 1, "weight_multiple", "at least 1", self.weight_multiple)
        require(self.stored_bytes >= 0, "stored_bytes", "at least 0", self.stored_bytes)


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
    claim: float  # the weight that it claims, usually its number of examples
    weight: float  # by which it is averaged
    message: Message  # the reply, without fedpress's records
    encoded: EncodedUpdate
    base: NodeModel
    record: str = "arrays"  # name of the ArrayRecord in which it was sent
    weighted_by: str = "num-examples"  # name of the metric that is its weight; empty if it needs none
    clip_norm: float = math.inf  # an update of a larger L2 norm is scaled down to it
    time: WorkTime = WorkTime()

    def weighted(self, weight: float) -> "ClientUpdate":
        """Return the update with another weight, also in its message."""
        write_weight(self.message, self.weighted_by, weight)
        return replace(self, weight=weight)

    def decode(self) -> Update:
        """Return w plus the node's update.

        Raises
        ------
        FrameError
            If it does not decode to finite tensors.
        """
        return self.decode_with_norms()[0]

    def decode_with_norms(self) -> tuple[Update, float, float]:
        """Return w plus the node's update, and two L2 norms of the update; raise as `decode` does.

        The first is of all floating-point tensors, before it was clipped, the second of those that codecs approximate,
        after it.
        """
        encoded, base, part, version = self.encoded, self.base, self.encoded.part, self.encoded.version
        coding = UpdateCoding(encoded.codec, part, base.masks, version, self._delta())
        sent, whole = coding.decode(encoded.frame), coding.whole
        if whole and version in base.versions:  # the update starts from the node's model
            sent, whole = difference(sent, base.versions.get(version), part), False
        update = difference(sent, base.exact, part) if whole else sent
        with np.errstate(over="ignore"):
            norm = _norm(update, part.floating)
            if not math.isfinite(norm):
                raise FrameError(f"its update's norm must be finite, got {norm}")
            if norm > self.clip_norm:
                share = np.float32(self.clip_norm / norm)
                update |= {tensor.name: update[tensor.name] * share for tensor in part.floating}
                whole = False
            model = {**base.exact, **sent} if whole else apply(base.exact, update, base.layout)
            for tensor in part.floating:  # in float32, to which the server rounds tensors of any width
                if not np.isfinite(np.asarray(model[tensor.name], np.float32)).all():
                    raise FrameError(f"tensor {tensor.name!r} must be finite in float32")
            coded = norm if part.lossy == part.floating else _norm(update, part.lossy)
        return model, norm, min(coded, self.clip_norm)

    def _delta(self) -> Update | None:
        """Return the delta that the node was sent last, which predicts where its update is large."""
        versions, part = self.base.versions, self.encoded.part
        before, version = self.encoded.before, self.encoded.version
        if before not in versions or version not in versions:
            return None
        return difference(versions.get(version), versions.get(before), part)


def _norm(update: Update, tensors: Sequence[TensorSpec]) -> float:
    """Return the L2 norm of some tensors of an update."""
    return math.sqrt(sum(float(np.square(update[t.name], dtype=np.float64).sum()) for t in tensors))


def read_weight(reply: Message, weighted_by: str) -> float:
    """Return the weight of a reply, the metric `weighted_by`; raise FrameError if it is missing or out of range.

    If `weighted_by` is empty, replies need no weight.
    """
    if not weighted_by:
        return 1.0
    metrics = list(reply.content.metric_records.values())
    if len(metrics) != 1:
        raise FrameError(f"a reply must hold one MetricRecord, got {len(metrics)}")
    weight = metrics[0].get(weighted_by)
    if not isinstance(weight, int | float) or not 0 < weight < _MAX_CLAIM:
        raise FrameError(f"{weighted_by} must be above 0 and below 2**63, got {weight!r}")
    return float(weight)


def write_weight(reply: Message, weighted_by: str, weight: float) -> None:
    """Set the weight of a reply that `read_weight` accepts."""
    if not weighted_by:
        return
    (metrics,) = reply.content.metric_records.values()
    if metrics[weighted_by] != weight:
        metrics[weighted_by] = weight


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
