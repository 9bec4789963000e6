"""Models that grow, as trees do: no layout holds from round to round, so their bytes pass through losslessly."""

from collections.abc import Iterable, Iterator
from typing import cast

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp.strategy import FedXgbBagging, FedXgbCyclic, Strategy

from fedpress.compression import FrameError, Update
from fedpress.compression.ledger import Direction, Entry, Purpose
from fedpress.compression.lossless import expand, squeeze
from fedpress.compression.message import FRAME_STYPE, KEY
from fedpress.server.aggregate import model_record, refuse
from fedpress.server.nodes import NamedGrid
from fedpress.server.wire import message_nbytes


def grows(strategy: Strategy) -> bool:
    """Return whether the models of `strategy` are trees."""
    return isinstance(strategy, FedXgbBagging | FedXgbCyclic)


class LosslessGrid(NamedGrid):
    """A Grid whose messages travel as lossless frames; `Strategy.start` works on it unaware."""

    round = 0  # that the messages of last say they are of

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        return list(self._unpacked(super().send_and_receive((self._pack(m) for m in messages), timeout=timeout)))

    def _pack(self, message: Message) -> Message:
        content = RecordDict(dict(message.content))
        for config in message.content.config_records.values():
            self.round = int(config.get("server-round", self.round))  # type: ignore[arg-type]
        layouts, plain = {}, 0
        for name, record in message.content.array_records.items():
            frame, layouts[name] = squeeze({key: array.numpy() for key, array in record.items()})
            content[name] = ArrayRecord({"frame": Array("uint8", (len(frame),), FRAME_STYPE, frame)})
            plain += sum(len(array.data) for array in record.values())
        content[KEY] = ConfigRecord({"ask": "lossless", "arrays": list(layouts), "layouts": list(layouts.values())})
        sent = message.metadata
        packed = Message(content, sent.dst_node_id, sent.message_type, ttl=sent.ttl, group_id=sent.group_id)
        self._write(packed, sent.dst_node_id, "down", plain)
        return packed

    def _unpacked(self, replies: Iterable[Message]) -> Iterator[Message]:
        """Yield errors as they are, and replies with their models as they were, if they decode."""
        for reply in replies:
            if reply.has_error():
                yield reply
                continue
            node = reply.metadata.src_node_id
            models: dict[str, Update] = {}
            try:
                said = reply.content.config_records[KEY]
                texts = cast("list[str]", said["layouts"])
                for name, text in zip(cast("list[str]", said["arrays"]), texts, strict=True):
                    (array,) = reply.content.array_records[name].values()
                    models[name] = expand(array.data, text)
            except (FrameError, KeyError, TypeError, ValueError) as error:
                self._write(reply, node, "up", 0)
                refuse(self.round, self.name(node), error)
                continue
            self._write(reply, node, "up", sum(a.nbytes for model in models.values() for a in model.values()))
            reply.content.update({name: model_record(model) for name, model in models.items()})
            del reply.content[KEY]
            yield reply

    def _write(self, message: Message, node: int, direction: Direction, plain: int) -> None:
        frame = sum(len(array.data) for record in message.content.array_records.values() for array in record.values())
        purpose: Purpose = "train" if message.metadata.message_type.startswith(MessageType.TRAIN) else "evaluate"
        self._ledger.add(Entry(self.round, self.name(node), direction, purpose, frame, message_nbytes(message), plain))
