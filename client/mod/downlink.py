"""The way down: from a message's frames, and what the node holds, to the model that the app is given."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message

from fedpress.client.mod import personal_layers
from fedpress.client.mod.node_state import Memory, model_record
from fedpress.compression import FrameError, Layout, Update, parse
from fedpress.compression.frame import read_frame
from fedpress.compression.updates import apply, difference, representable, version_of
from fedpress.compression.weight_masks import ALL, decode_change

Initial = Callable[[Context], Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class InitialModel:
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
            return personal_layers.split(whole, self.mask)
        except FrameError:  # another model than the server's: it will send its own
            return {}, {}


def own_tensors(message: Message, order: ConfigRecord, memory: Memory, start: InitialModel) -> ArrayRecord | None:
    """Return the tensors that stay on this node: as it left them, else as the federation begins; None if unknown."""
    if not start.mask:
        return None
    if memory.own and len(memory.own) == int.from_bytes(start.mask).bit_count():
        return memory.own
    if length := cast("int", order["own"]):
        data = memoryview(next(iter(message.content.array_records[str(order["arrays"])].values())).data)
        own = personal_layers.begin(bytes(data[-length:]), str(order["own_layout"]))
    else:
        own = start.make()[1]
    return model_record(own) if own else None


def receive_model(
    message: Message, order: ConfigRecord, memory: Memory, start: InitialModel
) -> tuple[Update, Update | None]:
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
