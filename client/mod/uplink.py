"""The way up: from the app's reply to one frame of what training changed."""

from dataclasses import replace
from typing import cast

from flwr.app import Array, ArrayRecord, ConfigRecord, Message

from fedpress.client.mod import personal_layers
from fedpress.client.mod.node_state import Memory, adapt, model_record
from fedpress.common.rng import derive
from fedpress.compression import Codec, Layout, State, Update, UpdateError, parse
from fedpress.compression.updates import changed, difference
from fedpress.compression.weight_masks import ALL, Live
from fedpress.protocol.messages import FRAME_STYPE, LOSSLESS, frame_name


def frame_record(frame: bytes) -> ArrayRecord:
    """Return `frame` as the ArrayRecord that stands in for a model."""
    return ArrayRecord({"frame": Array("uint8", (len(frame),), FRAME_STYPE, frame)})


def send_update(
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
        personal_layers.check(own, mine)
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
    reply.content[key] = frame_record(frame)
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
