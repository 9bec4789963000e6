"""The uplink on a node: from the model that the app returns to one frame of its update."""

from collections.abc import Set
from dataclasses import replace

from fedpress.client.mod.downlink import ReceivedModel
from fedpress.client.mod.node_state import ClientState, adapt_state
from fedpress.common.rng import derive
from fedpress.compression import Codec, Update
from fedpress.compression.updates import changed
from fedpress.compression.weight_masks import UNPRUNED, WeightMasks
from fedpress.protocol.messages import TrainRequest, frame_name
from fedpress.protocol.update_frames import UpdateCoding


def encode_update(
    codec: Codec, local: Update, received: ReceivedModel, request: TrainRequest, state: ClientState, node: str
) -> tuple[bytes, ClientState]:
    """Return the frame of an update, and the node's state after it.

    Parameters
    ----------
    codec : Codec
        Of the update.
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
