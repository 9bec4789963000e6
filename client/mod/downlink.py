"""The downlink on a node: from a request's frames, and the model that the node holds, to the model for the app."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from fedpress.client.mod.node_state import ClientState
from fedpress.common.errors import FrameError
from fedpress.compression import Layout, Update
from fedpress.compression.updates import difference, representable, version_of
from fedpress.protocol.arrays import arrays_of
from fedpress.protocol.messages import TrainRequest
from fedpress.protocol.model_frames import ModelFrames, apply_frames


@dataclass(frozen=True, eq=False)
class ReceivedModel:
    """The model that a request's frames lead to."""

    model: Update
    layout: Layout
    delta: Update | None  # the change that the frames made to the base; None for key frames


def receive_model(
    frames: ModelFrames, request: TrainRequest, state: ClientState, initial: Callable[[], Update]
) -> ReceivedModel | None:
    """Return the model that the frames lead to; None if they start from a model that the node does not hold.

    Parameters
    ----------
    initial : returns the model that the federation begins with, the part that is exchanged; empty if the node does not
        have it

    Raises
    ------
    FrameError
        If key frames do not lead to the model that the request announces.
    """
    base, version = arrays_of(state.base), state.version
    if not base and not frames.is_key and (base := initial()):
        base = representable(base, Layout.of(base))
        version = version_of(base, Layout.of(base))
    if not frames.is_key:
        if not version or (not frames.frames and frames.version != version):
            return None
        frames = replace(frames, base=version if frames.frames else b"")
    layout = Layout.read(request.layout) if request.layout else Layout.of(base)
    try:
        model = apply_frames(frames, base, layout, weight_masks=request.weight_masks)
    except FrameError:
        if frames.is_key:
            raise
        return None  # they start from another base, or the base is not the model of its version
    delta = difference(model, base, layout) if frames.base and request.keep else None
    return ReceivedModel(model, layout, delta)
