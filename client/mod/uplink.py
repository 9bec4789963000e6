"""The uplink on a node: from the model that the app returns to one frame of its update."""

from collections.abc import Set
from dataclasses import replace

from flwr.app import ArrayRecord, Message

from fedpress.client.mod.downlink import ReceivedModel
from fedpress.client.mod.node_state import ClientState, adapt_state
from fedpress.common.errors import UpdateError
from fedpress.common.rng import derive
from fedpress.compression import Codec, Update, parse
from fedpress.compression.updates import changed
from fedpress.compression.weight_masks import UNPRUNED, WeightMasks
from fedpress.protocol.arrays import arrays_of
from fedpress.protocol.messages import TrainRequest, frame_name
from fedpress.protocol.update_frames import UpdateCoding


def take_model(reply: Message) -> tuple[str, Update]:
    """Remove the trained model from a reply; return its record's name, and its tensors.

    The record stays empty until it holds the frame: a device may not have the memory for both.

    Raises
    ------
    UpdateError
        If the reply does not hold exactly one ArrayRecord.
    """
    records = reply.content.array_records
    if len(records) != 1:
        raise UpdateError(f"a reply must hold exactly one ArrayRecord, got {len(records)}: {sorted(records)}")
    ((name, record),) = records.items()
    model = arrays_of(record)
    reply.content[name] = ArrayRecord()
    return name, model


def encode_update(
    local: Update, received: ReceivedModel, request: TrainRequest, state: ClientState, node: str
) -> tuple[bytes, ClientState]:
    """Return the frame of an update, and the node's state after it.

    Parameters
    ----------
    local : Update
        The trained model; emptied, as a device may not have the memory for it and its frame.
    received : ReceivedModel
        The model that it was trained from.
    node : str
        The node's name, from which the codec's randomness derives.

    Raises
    ------
    UpdateError
        If `local` is not of the model's layout, or not finite.
    """
    layout = received.layout
    layout.check(local)
    codec = parse(request.up)
    masks = WeightMasks.of(received.model, layout) if request.weight_masks else UNPRUNED
    trained = masks.apply(local)  # training may have moved pruned weights: they stay pruned
    local.clear()
    mask = layout.mask(_sent(trained, received, request, codec, state))
    part = layout.part(mask)
    coding = UpdateCoding(codec, part, masks, request.version, received.delta)
    selected = coding.select(trained, received.model)
    del trained
    before = adapt_state(state.after, state.part, codec.init(part), part)
    frame, after, lost = coding.encode(selected, before, derive(request.seed, "up", request.round, node))
    return frame, replace(
        state,
        turn=state.turn + 1 if codec.stateful else state.turn,
        layout=layout.text,
        tensors=mask,
        sent=frame_name(frame) if codec.stateful else b"",
        after=after,
        lost=lost,
    )


def _sent(
    trained: Update, received: ReceivedModel, request: TrainRequest, codec: Codec, state: ClientState
) -> Set[str]:
    """Return the names of the tensors that are sent: those that changed, or all that may be sent if none changed."""
    layout = received.layout
    free = {tensor.name for tensor in layout.tensors}
    if request.exclude:
        free -= {tensor.name for tensor in layout.part(request.exclude).tensors}
    moved = changed(trained, received.model) & free
    if codec.stateful and state.after:  # tensors with a residual
        moved |= {tensor.name for tensor in state.part.tensors} & free
    return moved or free
