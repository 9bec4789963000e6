"""The mod: `ClientApp(mods=[compress()])` makes any Flower app send and receive compressed models."""

import logging
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict

from fedpress.client.memory import Memory, model_record
from fedpress.compression import Codec, FrameError, Layout, State, UpdateError, parse
from fedpress.compression.frame import base_of
from fedpress.compression.message import FRAME_STYPE, KEY, LOSSLESS, apply, difference, frame_name, version_of
from fedpress.compression.rng import derive

App = Callable[[Message, Context], Message]
Mod = Callable[[Message, Context, App], Message]

_log = logging.getLogger(KEY)


def compress() -> Mod:
    """Return the mod, to stand first among a ClientApp's mods.

    The app receives and returns whole models, unaware. The server's `Compressed` strategy says which codec; a message
    from any other strategy goes through untouched.

    Raises (inside the app, so that Flower reports it as this node's failure)
    ------
    UpdateError
        If the app's reply does not hold exactly one ArrayRecord, of the model's layout and finite.
    """

    def mod(message: Message, context: Context, app: App) -> Message:
        order = message.content.config_records.get(KEY)
        if order is None:
            return app(message, context)
        if order["ask"] == "who":
            return Message(RecordDict({KEY: ConfigRecord({"name": node_name(context)})}), reply_to=message)

        memory = _settle(Memory.load(context.state), order)
        model = _receive(message, order, memory)
        if model is None:
            memory.save(context.state)
            _log.warning(
                "node %s does not hold the model that the frames start from: asks for a key frame", node_name(context)
            )
            return Message(RecordDict({KEY: ConfigRecord({"version": b"", "need_key": True})}), reply_to=message)

        del message.content[KEY]
        message.content[str(order["arrays"])] = model
        keep = bool(order["keep"])
        version = bytes(order["version"])  # type: ignore[arg-type]
        layout = str(order.get("layout") or memory.layout)
        memory = (
            replace(memory, version=version, layout=layout, base=model)
            if keep
            else replace(memory, version=b"", base=None)
        )

        trains = message.metadata.message_type.split(".")[0] == MessageType.TRAIN
        reply = app(message, context)
        if trains and not reply.has_error():
            memory = _send(reply, order, memory, Layout.read(layout), model, node_name(context))
        memory.save(context.state)
        if reply.has_error():
            return reply
        reply.content[KEY] = ConfigRecord({"version": memory.version, "need_key": False})
        return reply

    return mod


def node_name(context: Context) -> str:
    """Return who this node is: its partition in a simulation, its enrolled name when deployed."""
    config = context.node_config
    return str(config.get("partition-id", config.get("name", context.node_id)))


def _settle(memory: Memory, order: ConfigRecord) -> Memory:
    """Return `memory` with the verdict on the last frame applied to it."""
    if not memory.sent:
        return memory
    state = memory.after if memory.sent == order["accepted"] else memory.lost
    return replace(memory, sent=b"", after=state, lost={})


def _receive(message: Message, order: ConfigRecord, memory: Memory) -> ArrayRecord | None:
    """Return the model that the message's frames lead to, or None if they start from one that the node has not."""
    data = memoryview(next(iter(message.content.array_records[str(order["arrays"])].values())).data)
    frames = []
    for length in order["frames"]:  # type: ignore[union-attr]
        frames.append(bytes(data[: int(length)]))
        data = data[int(length) :]
    version = bytes(order["version"])  # type: ignore[arg-type]
    if memory.base is not None and memory.version == version:
        return memory.base
    held = memory.version if memory.base is not None else None
    # The server may not know how far the node came: join the chain wherever the node stands on it.
    start = next((i for i, frame in enumerate(frames) if base_of(frame) in (b"", held)), None)
    if start is None:
        return None
    layout = Layout.read(str(order.get("layout") or memory.layout))
    model = {name: array.numpy() for name, array in memory.base.items()} if memory.base else {}
    for frame in frames[start:]:
        if base_of(frame):
            model = apply(model, parse(str(order["down"])).decode(frame, layout), layout)
        else:
            model = parse(LOSSLESS).decode(frame, layout)
    if version_of(model, layout) != version:
        if start == 0 and not base_of(frames[0]):
            raise FrameError(f"the key frame does not hold the model that the server announced, {version.hex()}")
        return None
    return model_record(model)


def _send(reply: Message, order: ConfigRecord, memory: Memory, layout: Layout, model: ArrayRecord, name: str) -> Memory:
    """Replace the reply's model by a frame of what training changed; return what is to be remembered."""
    records = reply.content.array_records
    if len(records) != 1:
        raise UpdateError(
            f"compress() expects exactly one ArrayRecord in a reply, got {len(records)}: {sorted(records)}"
        )
    ((key, record),) = records.items()
    local = {tensor: array.numpy() for tensor, array in record.items()}
    layout.check(local)
    spec = str(order["up"])
    codec = parse(spec)
    rng = derive(int(order["seed"]), "up", int(order["round"]), name)  # type: ignore[arg-type]
    after: State = {}
    lost: State = {}
    if spec == LOSSLESS:  # then the model itself is as few bytes as what changed, and exact
        frame, _ = codec.encode(local, {}, rng)
    else:
        before = memory.after if memory.spec == spec and memory.after else codec.init(layout)
        update = difference(local, {tensor: array.numpy() for tensor, array in model.items()}, layout)
        frame, after = codec.encode(update, before, rng, base=bytes(order["version"]))  # type: ignore[arg-type]
        lost = _lost(codec, before, update)
    array = Array("uint8", (len(frame),), FRAME_STYPE, frame)
    reply.content[key] = ArrayRecord({"frame": array})
    return replace(memory, spec=spec, sent=frame_name(frame) if codec.stateful else b"", after=after, lost=lost)


def _lost(codec: Codec, before: State, update: dict[str, np.ndarray]) -> State:
    return codec.lost(before, update) if codec.stateful else {}
