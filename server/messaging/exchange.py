"""The traffic of a federation: messages become frames, replies become updates, and both are counted."""

import logging
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, RecordDict

from fedpress.common.logs import LOGGER
from fedpress.compression import Codec, FrameError, Layout
from fedpress.flower.message_size import message_nbytes
from fedpress.protocol.arrays import frame_record
from fedpress.protocol.folding import fold, unfold
from fedpress.protocol.messages import (
    FRAME_STYPE,
    RECORD_NAME,
    BaseRequest,
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
    UpdateRules,
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
    """What one node was asked."""

    message: Message  # as the strategy made it
    up: Codec  # of its reply
    version: bytes  # the model that it is to start from
    base: bytes  # the model that it held before; empty if that is not known at both ends
    nonce: bytes  # of the message that it has not answered yet


@dataclass(frozen=True)
class NodeReply:
    """What a node that did it sent back, our own record taken off its message."""

    node: str
    message: Message
    asked: SentRequest
    tensors: bytes  # mask of the tensors that its frame holds
    work: WorkTime

    def update(self, models: Models, rules: UpdateRules) -> ClientUpdate:
        """Return this as an update; raise FrameError if it cannot be one. The frame is decoded later."""
        downlink = models.of(self.node)
        return ClientUpdate(
            node=self.node,
            weight=read_weight(self.message, rules.weighted_by, rules.limits),
            message=self.message,
            encoded=EncodedUpdate(
                frame=read_frame_of(self.message),
                codec=self.asked.up,
                part=downlink.layout.part(self.tensors),
                version=self.asked.version,
                before=self.asked.base,
            ),
            base=NodeModel(
                exact=downlink.exact,
                layout=downlink.layout,
                masks=downlink.masks,
                versions=downlink.versions,
                group=models.group(self.node),
                place=models.places.get(models.group(self.node)),
            ),
            rules=rules,
            time=self.work,
        )


@dataclass
class Delivery:
    """What came of a strategy's messages."""

    asked: dict[int, SentRequest]
    replies: list[NodeReply] = field(default_factory=list)  # of nodes that did it, in the order of their names
    trouble: str = ""  # why a reply does not count, the last one of them


class Exchange:
    """Sends a strategy's messages as frames and takes the replies in.

    Everything that goes over the wire passes here, so the ledger is written here and nowhere else.
    """

    def __init__(
        self,
        grid: NamedGrid,
        models: Models,
        ledger: Ledger,
        peers: NodeRecords,
        *,
        extensions: Sequence[MessageExtension],
        exclude: Mapping[Layout, bytes],
        seed: int,
    ) -> None:
        self.grid = grid
        self.models = models
        self.peers = peers
        self.ledger = ledger
        self.server = secrets.token_bytes(8)  # which server this is: its word on frames counts for its own alone
        self._extensions = extensions
        self._exclude = exclude  # for each layout the mask of tensors whose changes are not sent
        self._seed = seed
        self._shared: dict[ModelFrames, ArrayRecord] = {}  # equal frames are one object in Flower's store
        self._apart: dict[int, ConfigRecord] = {}  # and stay one when they are folded

    def deliver(
        self, round: int, messages: Iterable[Message], timeout: float, choose: Callable[[str, int], Codec]
    ) -> Delivery:
        """Send `messages`; nodes that lost their base get another frame in what is left of `timeout` (seconds).

        `choose` says which codec a node is to use, given its name and how many nodes are asked.
        """
        deadline = time.monotonic() + timeout
        waiting = {message.metadata.dst_node_id: message for message in messages}
        delivery = Delivery({})
        self._shared.clear()
        self._apart.clear()
        for node, message in waiting.items():
            up = choose(self.grid.name(node), len(waiting))
            delivery.asked[node] = SentRequest(message, up, b"", b"", b"")
        again = self._wave(round, dict.fromkeys(waiting, False), delivery, timeout)
        left = deadline - time.monotonic()
        if again and left > 0:
            self._wave(round, again, delivery, left)
        delivery.replies.sort(key=lambda reply: self.grid.order(reply.message.metadata.src_node_id))
        return delivery

    def accept(self, update: ClientUpdate) -> None:
        """Note that an update counted: its node is told so with the next message."""
        if update.encoded.codec.stateful:  # nobody waits for the verdict on anything else
            self.peers[update.node].accepted = frame_name(update.encoded.frame)

    def forget(self, needed: set[bytes]) -> None:
        """Give up the models that no node holds any more, and that are not `needed` either."""
        self.models.retain(self.peers.versions, needed)

    def _wave(self, round: int, nodes: dict[int, bool], delivery: Delivery, timeout: float) -> dict[int, bool]:
        """Send, take in, count; return the nodes that cannot start from what they got, and whether they need a key."""
        if not nodes:
            return {}
        # One by one: an engine that trains some nodes already has the next one's frames coded meanwhile.
        packed = (self._pack(round, node, delivery, key=key) for node, key in nodes.items())
        again: dict[int, bool] = {}
        for message in self.grid.send_and_receive(packed, timeout=timeout):
            node = message.metadata.src_node_id
            name = self.grid.name(node)
            if message.has_error():
                _log.warning("round %d: node %s failed: %s", round, name, message.error.reason)
                delivery.trouble = f"node {name} failed: {' '.join(str(message.error.reason).split())}"
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
                _log.warning("round %d: node %s: its app has no compress() among its mods", round, name)
                continue
            try:
                missed = self._take(round, node, message, record, delivery)
            except FrameError as error:
                log_refusal(round, name, error)
                delivery.trouble = f"node {name}: {error}"
                continue
            if missed is not None:
                again[node] = missed
        return again

    def _take(self, round: int, node: int, message: Message, record: ConfigRecord, delivery: Delivery) -> bool | None:
        """Take a reply in; if its node could not start return whether only a key frame will help, else None."""
        name = self.grid.name(node)
        if node not in delivery.asked:
            raise FrameError("the node was sent no request")
        reply = read_reply(record)
        for extension in self._extensions:
            extension.on_reply(name, message.content.config_records.get(extension_record(extension.name)))
        match reply:
            case BaseRequest():
                return self._take_base_request(round, name, reply)
            case TrainReply():
                self._take_reply(round, name, message, reply, delivery)
                return None
            case NodeDescription():
                raise FrameError("the node was not asked for its name")

    def _take_base_request(self, round: int, name: str, reply: BaseRequest) -> bool:
        """Return whether only a key frame will help a node that could not start from the frames that it was sent."""
        peer = self.peers[name]
        useless = reply.version == peer.held != b""  # the frames started from what it holds, and it could not start
        if peer.held and reply.version != peer.held:
            _log.warning("round %d: node %s lost the model that it held: it gets another", round, name)
        self._heard(name, reply.version, reply.turn)
        return useless or reply.version not in self.models.of(name).versions

    def _take_reply(self, round: int, name: str, message: Message, reply: TrainReply, delivery: Delivery) -> None:
        node = message.metadata.src_node_id
        asked = delivery.asked[node]
        content = message.content
        frames = [a.data for r in content.array_records.values() for a in r.values() if a.stype == FRAME_STYPE]
        frame = frames[0] if len(frames) == 1 else b""
        if not asked.nonce or reply.answer != answer_of(asked.nonce, round, name, frame):
            raise FrameError("the reply must answer the request that the node was sent, once")
        delivery.asked[node] = replace(asked, nonce=b"")
        self._heard(name, reply.version, reply.turn)
        for record in (RECORD_NAME, *(extension_record(extension.name) for extension in self._extensions)):
            content.pop(record, None)
        work = WorkTime(reply.training_seconds, reply.coding_seconds)
        delivery.replies.append(NodeReply(name, message, asked, reply.tensors, work))

    def _heard(self, name: str, version: bytes, turn: int) -> None:
        peer = self.peers[name]
        peer.held, peer.offered, peer.turn = version, b"", turn

    def _pack(self, round: int, node: int, delivery: Delivery, *, key: bool) -> Message:
        """Return the message that `node` is asked, with its model as the frames that the node lacks."""
        asked = delivery.asked[node]
        message = asked.message
        records = message.content.array_records
        if len(records) != 1:
            raise ValueError(f"a strategy's message holds one ArrayRecord, the model; got {sorted(records)}")
        (arrays,) = records
        name = self.grid.name(node)
        if name not in self.peers:  # one that was here before, as after a restart of the server, may hold a model
            self.peers[name].held = self.grid.versions.get(name, b"")
        peer = self.peers[name]
        downlink = self.models.of(name)
        frames = downlink.frames_for(peer.held, key=key)
        base = frames.base if downlink.keep else b""
        delivery.asked[node] = SentRequest(message, asked.up, frames.version, base, secrets.token_bytes(16))
        if downlink.keep:
            peer.offered = frames.version
        content = RecordDict(dict(message.content))
        content[arrays] = self._record(frames)
        request = TrainRequest(
            arrays=arrays,
            frame_lengths=tuple(map(len, frames.frames)),
            frame_tensors=frames.tensors,
            weight_mask_length=len(frames.weight_mask),
            version=frames.version,
            layout=downlink.layout.text if frames.is_key else "",
            weight_masks=downlink.sparse,
            keep=downlink.keep,
            up=str(asked.up),
            exclude=self._exclude[downlink.layout],
            accepted=peer.accepted,
            turn=peer.turn,
            server=self.server,
            nonce=delivery.asked[node].nonce,
            round=round,
            seed=self._seed,
        )
        content[RECORD_NAME] = request.to_record()
        payload, raw = self._extend(content, name)
        sent = message.metadata
        fold(content, self._apart)
        packed = Message(content, node, sent.message_type, ttl=sent.ttl, group_id=sent.group_id)
        self._note(round, packed, name, frames.nbytes + payload, message_nbytes(packed), raw)
        return packed

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

    def _record(self, frames: ModelFrames) -> ArrayRecord:
        if frames not in self._shared:
            self._shared[frames] = frame_record(frames.data)
        return self._shared[frames]

    def _count(self, round: int, message: Message, node: str, nbytes: int) -> None:
        frame = sum(len(array.data) for record in message.content.array_records.values() for array in record.values())
        self._note(round, message, node, frame, nbytes)

    def _note(self, round: int, message: Message, node: str, frame: int, nbytes: int, raw: int = 0) -> None:
        purpose: Purpose = "train" if message.metadata.message_type.startswith(MessageType.TRAIN) else "evaluate"
        is_reply = bool(message.metadata.reply_to_message_id)
        # An evaluation's reply, or a request for a key frame, carries no tensors.
        plain = self.models.of(node).layout.nbytes if frame or not is_reply else 0
        plain += raw
        direction: Direction = "up" if is_reply else "down"
        self.ledger.add(LedgerEntry(round, node, direction, purpose, frame, nbytes, plain))
