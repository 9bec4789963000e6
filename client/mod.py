"""The mod: `ClientApp(mods=[compress()])` makes any Flower app send and receive compressed models."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MessageType, MetricRecord, RecordDict

from fedpress.client import personal
from fedpress.client.memory import Memory, adapt, model_record
from fedpress.compression import Codec, FrameError, Layout, State, Update, UpdateError, parse
from fedpress.compression.envelope import Records
from fedpress.compression.frame import read_frame
from fedpress.compression.message import (
    FRAME_STYPE,
    KEY,
    LOSSLESS,
    answer_of,
    apply,
    changed,
    difference,
    frame_name,
    representable,
    version_of,
)
from fedpress.compression.rng import derive
from fedpress.compression.sparse import ALL, Live, decode_change

App = Callable[[Message, Context], Message]
Mod = Callable[[Message, Context, App], Message]
Initial = Callable[[Context], Mapping[str, np.ndarray]]

RECORDS = Records(Array, ArrayRecord, ConfigRecord, MetricRecord)

_log = logging.getLogger(KEY)


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
        order = message.content.config_records.get(KEY)
        if order is None:
            return app(message, context)
        memory = Memory.load(context.state)
        if order["ask"] == "who":
            runs = {key: value for key, value in context.node_config.items() if key in ("width", "model")}
            said = ConfigRecord({"name": node_name(context), "version": memory.version, **runs})
            return Message(RecordDict({KEY: said}), reply_to=message)

        memory = _settle(memory, order, node_name(context))
        began = time.monotonic()
        start = _Start(initial, context, cast("bytes", order["personal"]))
        model, side = _receive(message, order, memory, start)
        memory = replace(memory, own=_own(message, order, memory, start))
        coding = time.monotonic() - began
        if not model or (start.mask and not memory.own):
            memory.save(context.state)
            _log.warning(
                "node %s does not hold the model that the frames start from: asks for others", node_name(context)
            )
            said = ConfigRecord(
                {"version": memory.version, "need_key": True, "turn": memory.turn, "owns": memory.own is not None}
            )
            return Message(RecordDict({KEY: said}), reply_to=message)

        record = model_record(model)
        del message.content[KEY]
        message.content[str(order["arrays"])] = (
            ArrayRecord(personal.join(record, memory.own, start.mask)) if memory.own else record
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
            memory, frame = _send(reply, order, memory, layout, model, side, node_name(context))
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
        reply.content[KEY] = ConfigRecord(
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


def _frame_record(frame: bytes) -> ArrayRecord:
    return ArrayRecord({"frame": Array("uint8", (len(frame),), FRAME_STYPE, frame)})


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


@dataclass(frozen=True)
class _Start:
    """The model that the federation begins with, as far as the node has it."""

    initial: Initial | None
    context: Context
    mask: bytes  # of its personal tensors

    def make(self) -> tuple[Update, Update]:
        """Return what of it is shared, and what is this node's own; nothing if the node does not have it."""
        if self.initial is None:
            return {}, {}
        whole = {name: np.asarray(array) for name, array in self.initial(self.context).items()}
        try:
            return personal.split(whole, self.mask)
        except FrameError:  # another model than the server's: it will send its own
            return {}, {}


def _own(message: Message, order: ConfigRecord, memory: Memory, start: _Start) -> ArrayRecord | None:
    """Return the tensors that stay on this node: as it left them, else as the federation begins; None if unknown."""
    if not start.mask:
        return None
    if memory.own and len(memory.own) == int.from_bytes(start.mask).bit_count():
        return memory.own
    if length := cast("int", order["own"]):
        data = memoryview(next(iter(message.content.array_records[str(order["arrays"])].values())).data)
        own = personal.begin(bytes(data[-length:]), str(order["own_layout"]))
    else:
        own = start.make()[1]
    return model_record(own) if own else None


def _receive(message: Message, order: ConfigRecord, memory: Memory, start: _Start) -> tuple[Update, Update | None]:
    """Return the model that the message's frames lead to, empty if they start from one that the node has not.

    And what they changed in a model that the server knows that the node held.
    """
    wanted = bytes(order["version"])  # type: ignore[arg-type]
    frames = _frames(message, order)
    bases = [read_frame(frame).base for frame, _ in frames]
    base: Update = {name: array.numpy() for name, array in memory.base.items()} if memory.base else {}
    version = memory.version
    if not base and (not frames or bases[0]) and (base := start.make()[0]):
        base = representable(base, Layout.of(base))
        version = version_of(base, Layout.of(base))
    if any(named not in (b"", version) for named in bases) or (not frames and version != wanted):
        return {}, None
    if not frames:  # what is kept may have gone bad since: its name is not what it is
        return (base, None) if version_of(base, Layout.of(base)) == wanted else ({}, None)
    layout = Layout.read(str(order["layout"])) if order["layout"] else Layout.of(base)
    try:
        model = _follow(frames, base if bases[0] else {}, layout, _live(message, order))
        if Layout.of(model) != layout or version_of(model, layout) != wanted:
            raise FrameError(f"the frames do not lead to the model that the server announced, {wanted.hex()}")
    except FrameError:
        if bases[0]:  # from a base that went bad no frame leads on: a key frame needs none
            return {}, None
        raise
    side = difference(model, base, layout) if bases[0] and order["keep"] else None
    return model, side


def _follow(frames: list[tuple[bytes, bytes]], base: Update, layout: Layout, change: bytes | None) -> Update:
    """Return where `frames` lead from `base`, or from nothing if that is empty.

    `change` leads to the live weights, None if the federation knows no others.
    """
    model = base
    live = ALL if change is None else decode_change(change, base or None, layout)
    for frame, mask in frames:
        part = layout.part(mask)
        update = live.put(parse(read_frame(frame).spec).decode(frame, live.part(part)), part)
        model = apply(model, update, layout) if base else {**model, **update}
    return live.stamp({tensor.name: model[tensor.name] for tensor in layout.tensors if tensor.name in model})


def _live(message: Message, order: ConfigRecord) -> bytes | None:
    """Return what leads to the model's live weights; None if no weight is ever dead."""
    if not order["sparse"]:
        return None
    data = next(iter(message.content.array_records[str(order["arrays"])].values())).data
    end = len(data) - cast("int", order["own"])
    return bytes(data[end - cast("int", order["live"]) : end])


def _frames(message: Message, order: ConfigRecord) -> list[tuple[bytes, bytes]]:
    """Return the message's frames, each with the mask of its tensors."""
    data = memoryview(next(iter(message.content.array_records[str(order["arrays"])].values())).data)
    frames = []
    lengths, masks = cast("list[int]", order["frames"]), cast("list[bytes]", order["tensors"])
    for length, mask in zip(lengths, masks, strict=True):
        frames.append((bytes(data[:length]), mask))
        data = data[length:]
    return frames


def _send(
    reply: Message,
    order: ConfigRecord,
    memory: Memory,
    layout: Layout,
    model: Update,
    side: Update | None,
    name: str,
) -> tuple[Memory, bytes]:
    """Replace the reply's model by a frame of what training changed; return what is to be remembered, and the frame."""
    records = reply.content.array_records
    if len(records) != 1:
        raise UpdateError(
            f"compress() expects exactly one ArrayRecord in a reply, got {len(records)}: {sorted(records)}"
        )
    ((key, record),) = records.items()
    local = {tensor: array.numpy() for tensor, array in record.items()}
    if memory.own:
        mine = Layout.of({tensor: array.numpy() for tensor, array in memory.own.items()})
        own = {tensor.name: local.pop(tensor.name) for tensor in mine.tensors if tensor.name in local}
        personal.check(own, mine)
        memory = replace(memory, own=model_record(own))
    reply.content[key] = ArrayRecord()  # until the frame takes its place: a device has no room for two of them
    del records, record
    layout.check(local)
    codec = parse(str(order["up"]))
    excluded = bytes(order["exclude"])  # type: ignore[arg-type]
    live = Live.of(model, layout) if order["sparse"] else ALL
    local = live.stamp(local)  # what training made of dead weights counts for nothing
    free = {tensor.name for tensor in layout.tensors} - (
        {tensor.name for tensor in layout.part(excluded).tensors} if excluded else set()
    )
    moved = changed(local, model) & free
    if codec.stateful and memory.after:  # what these left out is still to be sent
        moved |= {tensor.name for tensor in memory.part.tensors} & free
    mask = layout.mask(moved or free)  # an update of nothing goes out whole: it takes few bytes, and is one
    part = layout.part(mask)
    rng = derive(int(order["seed"]), "up", int(order["round"]), name)  # type: ignore[arg-type]
    after: State = {}
    lost: State = {}
    if str(codec) == LOSSLESS:  # then the model itself is as few bytes as what changed, and exact
        frame, _ = codec.encode(live.take({tensor.name: local[tensor.name] for tensor in part.tensors}), {}, rng)
    else:
        before = _thinned(adapt(memory.after, memory.part, codec.init(part), part), live, part, codec)
        update = live.take(difference(local, model, part))
        del local
        known = live.take({tensor.name: side[tensor.name] for tensor in part.tensors}) if side else None
        frame, after = codec.encode(update, before, rng, side=known, base=cast("bytes", order["version"]))
        lost = live.wide(codec.lost(before, update), part) if codec.stateful else {}
        after = live.wide(after, part)
    reply.content[key] = _frame_record(frame)
    sent = frame_name(frame) if codec.stateful else b""
    turn = memory.turn + 1 if codec.stateful else memory.turn
    memory = replace(memory, turn=turn, layout=layout.text, tensors=mask, sent=sent, after=after, lost=lost)
    return memory, frame


def _thinned(state: State, live: Live, part: Layout, codec: Codec) -> State:
    """Return `state` for the live weights: what it had of dead ones is dropped, what is live again begins at zero."""
    if not live.masks:
        return state
    fresh, thin = codec.init(live.part(part)), live.thin(state, part)
    return {key: thin[key] if key in thin and thin[key].shape == array.shape else array for key, array in fresh.items()}
