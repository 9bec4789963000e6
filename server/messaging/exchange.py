"""The exchange with nodes: models are sent as frames, replies are read as updates, and bytes are counted."""

import logging
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, RecordDict

from fedpress.common.errors import FedpressError, SettingError
from fedpress.common.logs import LOGGER, clean
from fedpress.compression import Codec, FrameError, Layout
from fedpress.flower.message_size import message_nbytes
from fedpress.flower.runtime import GONE, RAISED
from fedpress.protocol.arrays import frame_record, holds_frame
from fedpress.protocol.folding import fold, unfold
from fedpress.protocol.messages import (
    RECORD_NAME,
    BaseRequest,
    DivergedReply,
    NodeDescription,
    TrainReply,
    TrainRequest,
    answer_of,
    extension_record,
    frame_name,
    read_reply,
)
from fedpress.protocol.model_frames import ModelFrames
from fedpress.server.aggregation.client_update import (
    ClientUpdate,
    EncodedUpdate,
    NodeModel,
    WorkTime,
    log_refusal,
    read_frame_of,
    read_weight,
)
from fedpress.server.downlink.models import Models
from fedpress.server.messaging.extension_messages import MessageExtension, RequestContext
from fedpress.server.messaging.ledger import Direction, Ledger, LedgerEntry, Purpose
from fedpress.server.messaging.named_grid import NamedGrid
from fedpress.server.messaging.node_state import NodeRecords

_log = logging.getLogger(LOGGER)


@dataclass(frozen=True)
class SentRequest:
    """A request that was sent to a node."""

    message: Message  # from the strategy
    up: Codec  # of the update
    version: bytes  # of the model that the node starts from
    base: bytes  # version of the model that the node held before; empty if one end lacks it
    nonce: bytes  # of the request; empty once it is answered


@dataclass(frozen=True)
class NodeReply:
    """A node's reply to a request for training or evaluation."""

    node: str  # its name
    message: Message  # the reply, without fedpress's records
    request: SentRequest
    tensors: bytes  # mask of the tensors that its frame holds
    work: WorkTime

    def update(self, models: Models, weighted_by: str, clip_norm: float) -> ClientUpdate:
        """Return the reply as an update, still encoded; raise FrameError if it is not one."""
        downlink, claim = models.of(self.node), read_weight(self.message, weighted_by)
        record, frame = read_frame_of(self.message)
        return ClientUpdate(
            node=self.node,
            claim=claim,
            weight=claim,
            message=self.message,
            encoded=EncodedUpdate(
                frame=frame,
                codec=self.request.up,
                part=downlink.layout.part(self.tensors),
                version=self.request.version,
                before=self.request.base,
            ),
            base=NodeModel(
                exact=downlink.exact,
                layout=downlink.layout,
                masks=downlink.masks,
                versions=downlink.versions,
                group=models.group(self.node),
                place=models.places.get(models.group(self.node)),
            ),
            record=record,
            weighted_by=weighted_by,
            clip_norm=clip_norm,
            time=self.work,
        )


@dataclass
class Delivery:
    """The requests of a round, and their replies."""

    requests: dict[int, SentRequest]  # by node id
    replies: list[NodeReply] = field(default_factory=list)  # valid ones, in the order of the nodes' names
    answered: set[int] = field(default_factory=set)  # ids of the nodes that sent anything, an error of theirs included
    cut_off: set[int] = field(
        default_factory=set
    )  # ids of the nodes whose replies were not waited for until the timeout
    refusal: str = ""  # reason of the last refusal of a reply; empty if none was refused
    diverged: int = 0  # number of nodes whose training diverged


class Exchange:
    """Sends a strategy's messages as frames, reads the replies, and adds both to the ledger.

    Parameters
    ----------
    grid : NamedGrid
        The grid of the nodes.
    models : Models
        The server's model, and those that nodes hold.
    ledger : Ledger
        Counts the bytes.
    nodes : NodeRecords
        The state of each node.
    key : str
        Name of the ArrayRecord in which the strategy sends the model.
    extensions : sequence of MessageExtension
        Extensions that add records to messages.
    exclude : mapping of Layout to bytes
        For each layout the mask of the tensors whose changes are not sent.
    seed : int
        Seed of the run.
    """

    def __init__(
        self,
        grid: NamedGrid,
        models: Models,
        ledger: Ledger,
        nodes: NodeRecords,
        *,
        key: str,
        extensions: Sequence[MessageExtension],
        exclude: Mapping[Layout, bytes],
        seed: int,
    ) -> None:
        self.grid = grid
        self.models = models
        self.nodes = nodes
        self.ledger = ledger
        self.server = secrets.token_bytes(8)  # identity of this server: nodes trust the counts of no other server
        self._key = key
        self._extensions = extensions
        self._mod_seen = False  # whether any node's app has answered as compress() does
        self._exclude = exclude
        self._seed = seed
        self._shared: dict[ModelFrames, ArrayRecord] = {}  # equal frames are one object, which Flower stores once
        self._folded: dict[int, ConfigRecord] = {}  # folded records, shared likewise

    def deliver(
        self, round: int, messages: Iterable[Message], timeout: float, choose: Callable[[str, int], Codec]
    ) -> Delivery:
        """Send messages and return the replies; nodes that lack the base of their frames are sent new frames.

        Parameters
        ----------
        round : int
            Number of the round.
        messages : iterable of Message
            The strategy's messages, one for each node.
        timeout : float
            Seconds to wait for all replies.
        choose : callable
            Returns the codec of a node's update, given its name and the number of messages.

        Returns
        -------
        Delivery
            The requests and the replies.
        """
        deadline = time.monotonic() + timeout
        waiting = {message.metadata.dst_node_id: message for message in messages}
        delivery = Delivery({})
        self._shared.clear()
        self._folded.clear()
        for node, message in waiting.items():
            up = choose(self.grid.name(node), len(waiting))
            delivery.requests[node] = SentRequest(message, up, b"", b"", b"")
        retry = self._send_requests(round, dict.fromkeys(waiting, False), delivery, timeout)
        left = deadline - time.monotonic()
        if retry and left > 0:
            self._send_requests(round, retry, delivery, left)
        self._note_silence(round, delivery)
        delivery.replies.sort(key=lambda reply: self.grid.order(reply.message.metadata.src_node_id))
        return delivery

    def accept(self, update: ClientUpdate) -> None:
        """Record that an update was aggregated, for the next request to its node."""
        if update.encoded.codec.stateful:  # a node without codec state does not use this
            self.nodes[update.node].accepted = frame_name(update.encoded.frame)

    def forget(self, needed: set[bytes]) -> None:
        """Delete the models that no node holds, except those `needed`."""
        self.models.retain(self.nodes.versions, needed)

    def resting(self, round: int) -> set[int]:
        """Return the ids of the nodes that rest in a round, since they did not answer before."""
        names = {name for name, record in self.nodes.items() if record.rests(round)}
        return {node for node in self.grid.get_node_ids() if self.grid.name(node) in names} if names else set()

    def _note_silence(self, round: int, delivery: Delivery) -> None:
        for node in delivery.requests:
            record = self.nodes[self.grid.name(node)]
            if node in delivery.answered:
                record.silent = record.cut_off = 0
                continue
            early = node in delivery.cut_off
            record.note_silence(round, cut_off=early)
            what = "is not waited for any longer" if early else "did not answer"
            _log.warning("round %d: node %s %s", round, clean(self.grid.name(node)), what)

    def _send_requests(self, round: int, nodes: dict[int, bool], delivery: Delivery, timeout: float) -> dict[int, bool]:
        """Send requests and read replies; return the nodes that lack the base, and whether each needs a key frame."""
        if not nodes:
            return {}
        # Lazily: frames of the next nodes are encoded while the engine trains the first ones.
        requests = (self._pack(round, node, delivery, key=key) for node, key in nodes.items())
        retry: dict[int, bool] = {}
        failed: list[int] = []  # nodes whose app raised an error, or replied without the mod
        for message in self.grid.send_and_receive(requests, timeout=timeout):
            node = message.metadata.src_node_id
            name = self.grid.name(node)
            if not (message.has_error() and message.error.code in GONE):
                delivery.answered.add(node)
            if message.has_error():
                delivery.refusal = f"node {clean(name)} failed: {clean(message.error.reason)}"
                _log.warning("round %d: %s", round, delivery.refusal)
                if message.error.code == RAISED:
                    failed.append(node)
                continue
            nbytes = message_nbytes(message)
            try:
                unfold(message.content)
            except (FrameError, KeyError, TypeError, ValueError) as error:
                self._count(round, message, name, nbytes)
                log_refusal(round, name, error)
                continue
            self._count(round, message, name, nbytes)
            record = message.content.config_records.get(RECORD_NAME)
            if record is None:
                delivery.refusal = f"node {clean(name)}: its app has no compress() among its mods"
                _log.warning("round %d: %s", round, delivery.refusal)
                failed.append(node)
                continue
            self._mod_seen = True
            try:
                needs_key = self._read(round, node, message, record, delivery)
            except FrameError as error:
                delivery.refusal = log_refusal(round, name, error)
                continue
            if needs_key is not None:
                retry[node] = needs_key
        delivery.cut_off |= self.grid.cut_off
        self._check_mod(round, failed, delivery)
        return retry

    def _check_mod(self, round: int, failed: list[int], delivery: Delivery) -> None:
        """Raise FedpressError if nodes failed, and none has ever answered as compress() does."""
        if failed and not self._mod_seen and self.grid.none_answers(failed):
            advice = "does the ClientApp have mods=[compress()], before any other mod?"
            raise FedpressError(f"round {round}: {delivery.refusal}: {advice}")

    def _read(self, round: int, node: int, message: Message, record: ConfigRecord, delivery: Delivery) -> bool | None:
        """Read a reply; return whether its node needs a key frame if it lacks the base, else None."""
        name = self.grid.name(node)
        if node not in delivery.requests:
            raise FrameError("the node was sent no request")
        reply = read_reply(record)
        match reply:
            case TrainReply() | DivergedReply():
                self._check_answer(round, message, reply.answer, delivery)
            case NodeDescription():
                raise FrameError("the node was not asked for its name")
        for extension in self._extensions:
            extension.on_reply(name, message.content.config_records.get(extension_record(extension.name)))
        match reply:
            case BaseRequest():
                return self._read_base_request(round, name, reply)
            case DivergedReply():
                self._record_version(name, reply.version, reply.turn)
                delivery.diverged += 1
                raise FrameError(f"its training diverged: its update has norm {reply.norm:.3g}")
            case TrainReply():
                self._record_version(name, reply.version, reply.turn)
                self._take_reply(message, reply, delivery)
        return None

    def _read_base_request(self, round: int, name: str, reply: BaseRequest) -> bool:
        """Return whether a node that could not start from its frames needs a key frame."""
        record = self.nodes[name]
        failed = reply.version == record.held != b""  # the node holds the base, but could not decode the frames
        if record.held and reply.version != record.held:
            _log.warning("round %d: node %s lost the model that it held: it is sent a new one", round, clean(name))
        self._record_version(name, reply.version, reply.turn)
        return failed or not self.models.of(name).starts_from(reply.version)

    def _check_answer(self, round: int, message: Message, answer: bytes, delivery: Delivery) -> None:
        """Raise FrameError if a reply is not the first one to the request that its node was sent."""
        node = message.metadata.src_node_id
        pending = delivery.requests[node]
        holds = any(holds_frame(record) for record in message.content.array_records.values())
        frame = read_frame_of(message)[1] if holds else b""
        if not pending.nonce or answer != answer_of(pending.nonce, round, self.grid.name(node), frame):
            raise FrameError("the reply must answer the request that the node was sent, once")
        delivery.requests[node] = replace(pending, nonce=b"")

    def _take_reply(self, message: Message, reply: TrainReply, delivery: Delivery) -> None:
        """Add a reply to those of the round, without fedpress's records."""
        for record in (RECORD_NAME, *(extension_record(extension.name) for extension in self._extensions)):
            message.content.pop(record, None)
        node, work = message.metadata.src_node_id, WorkTime(reply.training_seconds, reply.coding_seconds)
        delivery.replies.append(NodeReply(self.grid.name(node), message, delivery.requests[node], reply.tensors, work))

    def _record_version(self, name: str, version: bytes, turn: int) -> None:
        record = self.nodes[name]
        record.held, record.offered, record.turn = version, b"", turn

    def _pack(self, round: int, node: int, delivery: Delivery, *, key: bool) -> Message:
        """Return the request for `node`, with the frames of the model that the node lacks."""
        pending = delivery.requests[node]
        message = pending.message
        arrays = self._model_name(message)
        name = self.grid.name(node)
        if name not in self.nodes:  # the node may hold a model from before a restart of the server
            self.nodes[name].held = self.grid.versions.get(name, b"")
        record = self.nodes[name]
        downlink = self.models.of(name)
        frames = downlink.frames_for(record.held, key=key)
        base = frames.base if downlink.keep else b""
        delivery.requests[node] = SentRequest(message, pending.up, frames.version, base, secrets.token_bytes(16))
        if downlink.keep:
            record.offered = frames.version
        content = RecordDict(dict(message.content))
        content[arrays] = self._array_record(frames)
        request = TrainRequest(
            arrays=arrays,
            frame_lengths=tuple(map(len, frames.frames)),
            frame_specs=frames.specs,
            frame_tensors=frames.tensors,
            weight_mask_length=len(frames.weight_mask),
            version=frames.version,
            layout=downlink.layout.text if frames.is_key else "",
            weight_masks=downlink.prunes,
            keep=downlink.keep,
            up=str(pending.up),
            exclude=self._exclude[downlink.layout],
            accepted=record.accepted,
            turn=record.turn,
            server=self.server,
            nonce=delivery.requests[node].nonce,
            round=round,
            seed=self._seed,
        )
        content[RECORD_NAME] = request.to_record()
        payload, raw = self._extend(content, name)
        others = _array_nbytes(message.content) - _array_nbytes({arrays: message.content[arrays]})
        sent = message.metadata
        fold(content, self._folded)
        packed = Message(content, node, sent.message_type, ttl=sent.ttl, group_id=sent.group_id)
        nbytes, sent_model = frames.nbytes + payload + others, frames.nbytes > 0
        self._note(round, packed, name, nbytes, message_nbytes(packed), raw + others, tensors=sent_model)
        return packed

    def _model_name(self, message: Message) -> str:
        """Return the name of the model's ArrayRecord in a strategy's message; others are sent as they are."""
        records = message.content.array_records
        if self._key in records:
            return self._key
        wanted = {tensor.name for tensor in self.models.layout.tensors}
        matching = list(records) if len(records) == 1 else [name for name, r in records.items() if r.keys() == wanted]
        if len(matching) != 1:
            raise SettingError(
                f"one ArrayRecord of a strategy's message must be the model, {self._key!r}, got {sorted(records)}"
            )
        return matching[0]

    def _extend(self, content: RecordDict, node: str) -> tuple[int, int]:
        """Add the extensions' records to a request; return the bytes of frames in them, and of those uncompressed."""
        context = RequestContext(node, has_initial=bool(self.models.of(node).initial))
        payload = raw = 0
        for extension in self._extensions:
            added = extension.on_request(context)
            if added is not None:
                content[extension_record(extension.name)] = added.to_record()
                payload, raw = payload + added.payload_nbytes, raw + added.payload_raw_nbytes
        return payload, raw

    def _array_record(self, frames: ModelFrames) -> ArrayRecord:
        if frames not in self._shared:
            self._shared[frames] = frame_record(frames.data)
        return self._shared[frames]

    def _count(self, round: int, message: Message, node: str, nbytes: int) -> None:
        frames = [name for name, record in message.content.array_records.items() if holds_frame(record)]
        others = _array_nbytes({n: r for n, r in message.content.array_records.items() if n not in frames})
        self._note(round, message, node, _array_nbytes(message.content), nbytes, others, tensors=bool(frames))

    def _note(
        self, round: int, message: Message, node: str, frame: int, nbytes: int, raw: int, *, tensors: bool
    ) -> None:
        purpose: Purpose = "train" if message.metadata.message_type.startswith(MessageType.TRAIN) else "evaluate"
        is_reply = bool(message.metadata.reply_to_message_id)
        # Base requests, replies to evaluations, and requests to nodes that hold the model carry no tensors of it.
        plain = (self.models.of(node).layout.nbytes if tensors else 0) + raw
        direction: Direction = "up" if is_reply else "down"
        self.ledger.add(LedgerEntry(round, node, direction, purpose, frame, nbytes, plain))


def _array_nbytes(content: Mapping[str, object]) -> int:
    """Return the bytes of all arrays of a message, of frames and of tensors that are sent as they are."""
    records = (record for record in content.values() if isinstance(record, ArrayRecord))
    return sum(len(array.data) for record in records for array in record.values())
