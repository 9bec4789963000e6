"""The mod: `ClientApp(mods=[compress()])` makes any Flower app send and receive compressed models."""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import cast

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MessageType, MetricRecord, RecordDict

from fedpress.client.mod import personal_layers
from fedpress.client.mod.downlink import Initial, InitialModel, own_tensors, receive_model
from fedpress.client.mod.node_state import Memory, model_record
from fedpress.client.mod.uplink import send_update
from fedpress.common.logs import LOGGER
from fedpress.compression import Layout
from fedpress.protocol.folding import Records
from fedpress.protocol.messages import RECORD_NAME, answer_of

App = Callable[[Message, Context], Message]
Mod = Callable[[Message, Context, App], Message]

RECORDS = Records(Array, ArrayRecord, ConfigRecord, MetricRecord)

_log = logging.getLogger(LOGGER)


def compress(initial: Initial | None = None) -> Mod:
    """Return the mod, to stand first among a ClientApp's mods.

    The app receives and returns whole models, unaware. The server's `Compressed` strategy says which codec; a message
    from any other strategy goes through untouched.

    Parameters
    ----------
    initial : returns the model that the federation begins with, tensor by name, if the node has it: from a seed, or
        from a file that came with the app. A server with `Compressed(..., shared_initial=True)` then sends no key
        frames. A model that is not the server's is noticed, and replaced by a key frame.

    Raises (inside the app, so that Flower reports it as this node's failure)
    ------
    UpdateError
        If the app's reply does not hold exactly one ArrayRecord, of the model's layout and finite.
    """

    def mod(message: Message, context: Context, app: App) -> Message:
        folded = RECORDS.unfold(message.content)
        reply = work(message, context, app)
        if folded and reply.has_content():
            RECORDS.fold(reply.content)
        return reply

    def work(message: Message, context: Context, app: App) -> Message:
        order = message.content.config_records.get(RECORD_NAME)
        if order is None:
            return app(message, context)
        memory = Memory.load(context.state)
        if order["ask"] == "who":
            runs = {key: value for key, value in context.node_config.items() if key in ("width", "model")}
            said = ConfigRecord({"name": node_name(context), "version": memory.version, **runs})
            return Message(RecordDict({RECORD_NAME: said}), reply_to=message)

        memory = _settle(memory, order, node_name(context))
        began = time.monotonic()
        start = InitialModel(initial, context, cast("bytes", order["personal"]))
        model, side = receive_model(message, order, memory, start)
        memory = replace(memory, own=own_tensors(message, order, memory, start))
        coding = time.monotonic() - began
        if not model or (start.mask and not memory.own):
            memory.save(context.state)
            _log.warning(
                "node %s does not hold the model that the frames start from: asks for others", node_name(context)
            )
            said = ConfigRecord(
                {"version": memory.version, "need_key": True, "turn": memory.turn, "owns": memory.own is not None}
            )
            return Message(RecordDict({RECORD_NAME: said}), reply_to=message)

        record = model_record(model)
        del message.content[RECORD_NAME]
        message.content[str(order["arrays"])] = (
            ArrayRecord(personal_layers.join(record, memory.own, start.mask)) if memory.own else record
        )
        version = bytes(order["version"])  # type: ignore[arg-type]
        layout = Layout.of(model)
        kept = {"version": version, "base": record} if order["keep"] else {"version": b"", "base": None}
        memory = replace(memory, **kept)

        trains = message.metadata.message_type.split(".")[0] == MessageType.TRAIN
        began = time.monotonic()
        reply = app(message, context)
        seconds = time.monotonic() - began
        frame = b""
        if trains and not reply.has_error():
            began = time.monotonic()
            memory, frame = send_update(reply, order, memory, layout, model, side, node_name(context))
            coding += time.monotonic() - began
        memory.save(context.state)
        if reply.has_error():
            return reply
        answer = answer_of(
            cast("bytes", order["nonce"]),
            cast("int", order["round"]),
            node_name(context),
            frame,
        )
        reply.content[RECORD_NAME] = ConfigRecord(
            {
                "version": memory.version,
                "need_key": False,
                "turn": memory.turn,
                "owns": memory.own is not None,
                "tensors": memory.tensors if frame else b"",
                "answer": answer,
                "seconds": seconds,
                "coding": coding,
            }
        )
        return reply

    return mod


def node_name(context: Context) -> str:
    """Return who this node is: its enrolled name when deployed, its partition in a simulation."""
    config = context.node_config
    return str(config.get("name", config.get("partition-id", context.node_id)))


def _settle(memory: Memory, order: ConfigRecord, name: str) -> Memory:
    """Return `memory` with the verdict on the last frame applied to it."""
    server, turn = bytes(order["server"]), int(order["turn"])  # type: ignore[arg-type]
    if memory.server != server or turn > memory.turn:
        # What is remembered was meant for another server, or is older than what this one had from us since: it may
        # have counted already, so none of it may be sent again.
        if memory.after or memory.lost:
            _log.warning("node %s forgets what it had not sent: the server knows another past", name)
        return replace(memory, server=server, turn=turn, sent=b"", after={}, lost={}, tensors=b"")
    if not memory.sent:
        return memory
    state = memory.after if memory.sent == order["accepted"] else memory.lost
    return replace(memory, sent=b"", after=state, lost={})
