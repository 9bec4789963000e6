"""The types of the messages between server and nodes.

Every Flower message between them carries one ConfigRecord under `RECORD_NAME`, written from one of the types below;
models and updates are sent with it, as frames in an ArrayRecord. An extension of the round adds a typed record that
only it reads, under `extension_record(name)`.

    NodeQuery       server to node   asks for the node's name
    NodeDescription node to server   answers it
    TrainRequest    server to node   asks to train, or to evaluate, the model that its frames lead to
    TrainReply      node to server   goes with the update, or with the metrics of an evaluation
    BaseRequest     node to server   asks for frames from another base: the node does not hold the one they start from
    DivergedReply   node to server   takes the place of an update: the training diverged
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from flwr.app import ConfigRecord

from fedpress.common.errors import FrameError
from fedpress.protocol.typed_records import TypedRecord

LONGEST_NAME = 256  # characters of a node's name, and of the names of records and models
LONGEST_SPEC = 4096  # characters of a codec's spec
RECORD_NAME = "fedpress"  # of the ConfigRecord that every message carries
FRAME_STYPE = "fedpress.frame"  # type of an array of bytes that is frames
MOST_FRAMES = 256  # of one request: each takes a node the time of a whole model
LOSSLESS = "none"  # spec of the lossless codec
RESERVED = frozenset({"base", "after", "lost", "frames"})  # names of records that no extension may have


class ProtocolMessage(TypedRecord):
    """Base of the messages: the record also holds the message's kind, in the field `kind`.

    Examples
    --------
    >>> NodeQuery().to_record()["kind"]
    'query'
    """

    kind: ClassVar[str]

    def __init_subclass__(cls, kind: str) -> None:
        super().__init_subclass__()
        cls.kind = kind

    def to_record(self) -> ConfigRecord:
        return ConfigRecord({"kind": self.kind, **super().to_record()})


@dataclass(frozen=True)
class NodeQuery(ProtocolMessage, kind="query"):
    """Asks a node for its name.

    Examples
    --------
    >>> read_request(NodeQuery().to_record())
    NodeQuery()
    """


@dataclass(frozen=True)
class NodeDescription(ProtocolMessage, kind="node"):
    """Describes the node that sends it.

    Examples
    --------
    >>> NodeDescription(name="a", version=b"", width="", model="").name
    'a'
    """

    name: str  # its enrolled name when deployed, its partition's number in a simulation
    version: bytes  # of the model that it holds, 8 bytes; empty if it holds none
    width: str  # largest share of a model's channels that it can train, as configured; empty if it is not configured
    model: str  # the workload's model that it can train; empty if none is configured

    def __post_init__(self) -> None:
        _check_lengths(self, name=LONGEST_NAME, width=LONGEST_NAME, model=LONGEST_NAME, version=8)


@dataclass(frozen=True)
class TrainRequest(ProtocolMessage, kind="train"):
    """Asks a node to train the model that the frames lead to, or to evaluate it if the Flower message asks for that.

    Examples
    --------
    >>> request = TrainRequest(
    ...     arrays="arrays",
    ...     frame_lengths=(120,),
    ...     frame_specs=("fp16",),
    ...     frame_tensors=(b"",),
    ...     weight_mask_length=0,
    ...     version=bytes(8),
    ...     layout="[]",
    ...     weight_masks=False,
    ...     keep=True,
    ...     up="fp16",
    ...     exclude=b"",
    ...     accepted=b"",
    ...     turn=0,
    ...     server=bytes(8),
    ...     nonce=bytes(16),
    ...     round=1,
    ...     seed=0,
    ... )
    >>> read_request(request.to_record()) == request
    True
    """

    arrays: str  # name of the ArrayRecord: frames when it travels, the model when the app sees it
    frame_lengths: tuple[int, ...]  # bytes of each frame, in the order in which they are applied
    frame_specs: tuple[str, ...]  # of each frame's codec: frames leave out what this message and its receiver know
    frame_tensors: tuple[bytes, ...]  # for each frame the mask of the tensors that it holds; empty for all
    weight_mask_length: int  # bytes after the frames that lead to the model's weight masks; 0 if they are the base's
    version: bytes  # of the model that the frames lead to, 8 bytes
    layout: str  # of that model, as text; empty if it is the base's
    weight_masks: bool  # whether weights that are minus zero are pruned, and in no frame
    keep: bool  # whether the node is to keep the model as the base of a later delta
    up: str  # spec of the codec of the update
    exclude: bytes  # mask of the tensors whose changes are not sent; empty for none
    accepted: bytes  # name of the last frame of this node that was accepted, 8 bytes; empty if none was
    turn: int  # number of stateful updates that the node had sent by its last reply that arrived
    server: bytes  # identity of the server that counted them, 8 bytes
    nonce: bytes  # of this request alone, 16 bytes: the reply is bound to it
    round: int  # number of the round, from 1; also of an evaluation after the last one
    seed: int  # of the run

    def __post_init__(self) -> None:
        for name in ("frame_specs", "frame_tensors"):
            if len(getattr(self, name)) != len(self.frame_lengths):
                raise FrameError(
                    f"{name} must have an item for each of {len(self.frame_lengths)} frames, "
                    f"got {len(getattr(self, name))}"
                )
        if len(self.frame_lengths) > MOST_FRAMES:
            raise FrameError(f"a request must have at most {MOST_FRAMES} frames, got {len(self.frame_lengths)}")
        if min((0, *self.frame_lengths, self.weight_mask_length)) < 0:
            raise FrameError("frame_lengths and weight_mask_length must be at least 0")
        for name in ("round", "seed", "turn"):
            _check_count(self, name)
        _check_lengths(self, arrays=LONGEST_NAME, up=LONGEST_SPEC, version=8, accepted=8, server=8, nonce=16)


@dataclass(frozen=True)
class TrainReply(ProtocolMessage, kind="reply"):
    """Is sent with the app's reply to a request.

    Examples
    --------
    >>> reply = TrainReply(
    ...     version=bytes(8), turn=1, tensors=b"", answer=bytes(16), training_seconds=2.5, coding_seconds=-1.0
    ... )
    >>> reply.coding_seconds  # which is not a valid time
    0.0
    """

    version: bytes  # of the model that the node holds now, 8 bytes; empty if it keeps none
    turn: int  # number of stateful updates that the node has sent, this one included
    tensors: bytes  # mask of the tensors that the frame holds; empty for all
    answer: bytes  # binds the frame to the request, 16 bytes: see `answer_of`
    training_seconds: float  # of the app; 0 if the node reports no valid time
    coding_seconds: float  # of decoding and encoding; 0 likewise

    def __post_init__(self) -> None:
        object.__setattr__(self, "training_seconds", _duration(self.training_seconds))
        object.__setattr__(self, "coding_seconds", _duration(self.coding_seconds))
        _check_lengths(self, version=8, answer=16)
        _check_count(self, "turn")


@dataclass(frozen=True)
class BaseRequest(ProtocolMessage, kind="base"):
    """Asks for frames that start from another model: the node does not hold the base of those that it was sent.

    Examples
    --------
    >>> read_reply(BaseRequest(version=b"", turn=0).to_record())
    BaseRequest(version=b'', turn=0)
    """

    version: bytes  # of the model that the node holds, 8 bytes; empty if it holds none
    turn: int  # number of stateful updates that the node has sent

    def __post_init__(self) -> None:
        _check_lengths(self, version=8)
        _check_count(self, "turn")


@dataclass(frozen=True)
class DivergedReply(ProtocolMessage, kind="diverged"):
    """Takes the place of an update that cannot be used: the training diverged.

    Examples
    --------
    >>> DivergedReply(version=b"", turn=0, answer=bytes(16), norm=1e37).norm
    1e+37
    """

    version: bytes  # of the model that the node holds, 8 bytes; empty if it keeps none
    turn: int  # number of stateful updates that the node has sent
    answer: bytes  # binds it to the request, 16 bytes: see `answer_of`; its frame is empty
    norm: float  # L2 norm of the update, NaN or infinite if the update is

    def __post_init__(self) -> None:
        _check_lengths(self, version=8, answer=16)
        _check_count(self, "turn")


class ExtensionMessage(TypedRecord):
    """Base of the typed records that an extension of the round adds to a message.

    Examples
    --------
    >>> @dataclass(frozen=True)
    ... class Factor(ExtensionMessage):
    ...     factor: float  # by which learning rates are multiplied
    >>> Factor.from_record(Factor(0.5).to_record()).factor
    0.5
    """

    @property
    def payload_nbytes(self) -> int:
        """Bytes of the frames among the fields: they are counted as the frames of models are."""
        return 0

    @property
    def payload_raw_nbytes(self) -> int:
        """Bytes of the same tensors, uncompressed."""
        return 0


def extension_record(name: str) -> str:
    """Return the name of an extension's record.

    Parameters
    ----------
    name : str
        Name of the extension.

    Returns
    -------
    str
        Name of the ConfigRecord in a message.

    Examples
    --------
    >>> extension_record("clipping")
    'fedpress.clipping'
    """
    return f"{RECORD_NAME}.{name}"


def extension_name(record: str) -> str:
    """Return the name of the extension that a record belongs to: the inverse of `extension_record`.

    Parameters
    ----------
    record : str
        Name of a ConfigRecord.

    Returns
    -------
    str
        Name of the extension; empty if it is not an extension's record.

    Examples
    --------
    >>> extension_name("fedpress.clipping")
    'clipping'
    """
    prefix, _, name = record.partition(".")
    return name if prefix == RECORD_NAME else ""


def read_request(record: Mapping[str, object]) -> NodeQuery | TrainRequest:
    """Return the server's message in a record.

    Parameters
    ----------
    record : mapping of str to object
        A ConfigRecord, from outside.

    Returns
    -------
    NodeQuery or TrainRequest
        The message.

    Raises
    ------
    FrameError
        If the record is not one of the server's messages, or a field is missing or of another type.

    Examples
    --------
    >>> read_request(NodeQuery().to_record())
    NodeQuery()
    """
    match record.get("kind"):
        case NodeQuery.kind:
            return NodeQuery.from_record(record)
        case TrainRequest.kind:
            return TrainRequest.from_record(record)
        case kind:
            raise FrameError(f"kind must be {NodeQuery.kind!r} or {TrainRequest.kind!r}, got {kind!r}")


def read_reply(record: Mapping[str, object]) -> NodeDescription | TrainReply | BaseRequest | DivergedReply:
    """Return the node's message in a record.

    Parameters
    ----------
    record : mapping of str to object
        A ConfigRecord, from outside.

    Returns
    -------
    NodeDescription, TrainReply, BaseRequest or DivergedReply
        The message.

    Raises
    ------
    FrameError
        If the record is not one of a node's messages, or a field is missing or of another type.

    Examples
    --------
    >>> read_reply(NodeDescription(name="a", version=b"", width="", model="").to_record()).name
    'a'
    """
    match record.get("kind"):
        case NodeDescription.kind:
            return NodeDescription.from_record(record)
        case TrainReply.kind:
            return TrainReply.from_record(record)
        case BaseRequest.kind:
            return BaseRequest.from_record(record)
        case DivergedReply.kind:
            return DivergedReply.from_record(record)
        case kind:
            raise FrameError(f"kind must be that of a node's message, got {kind!r}")


def frame_name(frame: bytes) -> bytes:
    """Return the name by which both ends refer to a frame.

    Parameters
    ----------
    frame : bytes
        The frame.

    Returns
    -------
    bytes
        Its hash, 8 bytes.

    Examples
    --------
    >>> len(frame_name(b"frame"))
    8
    """
    return hashlib.blake2b(frame, digest_size=8).digest()


def answer_of(nonce: bytes, round: int, node: str, frame: bytes) -> bytes:
    """Return the hash that binds a frame to its round, its node and the request that it answers.

    Parameters
    ----------
    nonce : bytes
        The request's nonce, 16 bytes.
    round : int
        Number of the round.
    node : str
        The node's name.
    frame : bytes
        The frame; empty for an evaluation.

    Returns
    -------
    bytes
        The hash, 16 bytes.

    Examples
    --------
    >>> len(answer_of(bytes(16), 1, "a", b"frame"))
    16
    """
    state = hashlib.blake2b(nonce, digest_size=16, person=b"fedpress.answer", salt=round.to_bytes(8, "little"))
    state.update(len(node.encode()).to_bytes(4, "little") + node.encode())
    state.update(frame)
    return state.digest()


def _check_lengths(message: TypedRecord, **most: int) -> None:
    """Raise FrameError if a text or bytes field is longer than the given number of characters or bytes."""
    for name, limit in most.items():
        length = len(getattr(message, name))
        if length > limit:
            raise FrameError(f"{name} must have a length of at most {limit}, got {length}")


def _check_count(message: TypedRecord, name: str) -> None:
    """Raise FrameError if a field is not a number that fits 63 bits."""
    if not 0 <= getattr(message, name) < 1 << 63:
        raise FrameError(f"{name} must be at least 0 and below 2**63, got {getattr(message, name):.3g}")


def _duration(seconds: float) -> float:
    return seconds if 0 <= seconds < math.inf else 0.0
