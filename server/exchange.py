"""The traffic of a federation: messages become frames, replies become votes, and both are counted."""

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, RecordDict

from fedpress.compression import Codec
from fedpress.compression.ledger import Direction, Entry, Ledger, Purpose
from fedpress.compression.message import FRAME_STYPE, KEY, frame_name
from fedpress.server.downlink import Downlink, Frames
from fedpress.server.nodes import NamedGrid
from fedpress.server.wire import message_nbytes

_log = logging.getLogger(KEY)


@dataclass
class Delivery:
    """What came of a strategy's messages."""

    asked: dict[int, Message]  # node id -> the message as the strategy made it
    replies: list[Message] = field(default_factory=list)  # of nodes that did it, in the order of their names


class Exchange:
    """Sends a strategy's messages as frames and takes the replies in.

    Everything that goes over the wire passes here, so the ledger is written here and nowhere else.
    """

    def __init__(self, grid: NamedGrid, downlink: Downlink, up: Codec, ledger: Ledger, seed: int) -> None:
        self.grid = grid
        self.downlink = downlink
        self._up = up
        self._ledger = ledger
        self._seed = seed
        self._accepted: dict[str, bytes] = {}  # node -> name of the last frame accepted from it
        self._shared: dict[tuple[bytes, ...], ArrayRecord] = {}  # equal frames are one object in Flower's store

    def deliver(self, round: int, messages: Iterable[Message], timeout: float) -> Delivery:
        """Send `messages`; nodes that lost their base get a key frame in what is left of `timeout` (seconds)."""
        deadline = time.monotonic() + timeout
        delivery = Delivery({message.metadata.dst_node_id: message for message in messages})
        self._shared.clear()
        again = self._wave(round, list(delivery.asked), delivery, timeout, key=False)
        left = deadline - time.monotonic()
        if again and left > 0:
            self._wave(round, again, delivery, left, key=True)
        delivery.replies.sort(key=lambda reply: self.grid.order(reply.metadata.src_node_id))
        return delivery

    def accept(self, node: str, frame: bytes) -> None:
        """Note that `frame` counted: its node is told so with the next message."""
        if self._up.stateful:  # nobody waits for the verdict on anything else
            self._accepted[node] = frame_name(frame)

    def _wave(self, round: int, nodes: list[int], delivery: Delivery, timeout: float, *, key: bool) -> list[int]:
        """Send, take in, count; return the nodes that ask for a key frame."""
        if not nodes:
            return []
        again = []
        packed = [self._pack(round, delivery.asked[node], key=key) for node in nodes]
        for reply in self.grid.send_and_receive(packed, timeout=timeout):
            node = reply.metadata.src_node_id
            name = self.grid.name(node)
            if reply.has_error():
                _log.warning("round %d: node %s failed: %s", round, name, reply.error.reason)
                continue
            self._count(round, reply, name)
            said = reply.content.config_records.get(KEY)
            if said is None:
                _log.warning("round %d: node %s: its app has no compress() among its mods", round, name)
                continue
            self.downlink.holds(name, bytes(said["version"]))  # type: ignore[arg-type]
            if said["need_key"]:
                again.append(node)
                continue
            del reply.content[KEY]
            delivery.replies.append(reply)
        return again

    def _pack(self, round: int, message: Message, *, key: bool) -> Message:
        """Return `message` with its model as the frames that its node lacks."""
        records = message.content.array_records
        if len(records) != 1:
            raise ValueError(f"a strategy's message holds one ArrayRecord, the model; got {sorted(records)}")
        (arrays,) = records
        node = message.metadata.dst_node_id
        name = self.grid.name(node)
        frames = self.downlink.frames_for(name, key=key)
        content = RecordDict(dict(message.content))
        content[arrays] = self._record(frames)
        content[KEY] = ConfigRecord(
            {
                "ask": "work",
                "arrays": arrays,
                "frames": [len(frame) for frame in frames.frames],
                "version": frames.version,
                "layout": self.downlink.layout.text if frames.key else "",
                "down": str(self.downlink.codec),
                "up": str(self._up),
                "keep": self.downlink.keep,
                "accepted": self._accepted.get(name, b""),
                "round": round,
                "seed": self._seed,
            }
        )
        sent = message.metadata
        packed = Message(content, node, sent.message_type, ttl=sent.ttl, group_id=sent.group_id)
        self._count(round, packed, name)
        return packed

    def _record(self, frames: Frames) -> ArrayRecord:
        if frames.frames not in self._shared:
            data = b"".join(frames.frames)
            self._shared[frames.frames] = ArrayRecord({"frames": Array("uint8", (len(data),), FRAME_STYPE, data)})
        return self._shared[frames.frames]

    def _count(self, round: int, message: Message, node: str) -> None:
        frame = sum(len(array.data) for record in message.content.array_records.values() for array in record.values())
        purpose: Purpose = "train" if message.metadata.message_type.startswith(MessageType.TRAIN) else "evaluate"
        is_reply = bool(message.metadata.reply_to_message_id)
        # An evaluation's reply, or a request for a key frame, carries no tensors.
        plain = self.downlink.layout.nbytes if frame or not is_reply else 0
        direction: Direction = "up" if is_reply else "down"
        self._ledger.add(Entry(round, node, direction, purpose, frame, message_nbytes(message), plain))
