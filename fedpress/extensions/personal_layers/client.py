"""Personal layers on a node: removed from the models that it sends and added to those that it receives."""

from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
from flwr.app import ArrayRecord

from fedpress.client.mod.extension import ClientExtension
from fedpress.common.errors import FrameError, UpdateError
from fedpress.compression import Layout, Update, parse
from fedpress.compression.layout import read_mask
from fedpress.extensions.personal_layers.messages import PersonalLayersReply, PersonalLayersRequest
from fedpress.protocol.arrays import arrays_of, model_record
from fedpress.protocol.messages import LOSSLESS

T = TypeVar("T")


class PersonalLayersClient(ClientExtension[PersonalLayersRequest]):
    """Keeps the personal tensors on the node; its state holds them as of the last training."""

    request_type = PersonalLayersRequest

    def exchanged(self, request: PersonalLayersRequest, model: Update) -> Update:
        return split(model, request.mask)[0]

    def begin(
        self, request: PersonalLayersRequest, state: ArrayRecord | None, initial: Callable[[], Update]
    ) -> ArrayRecord | None:
        if state and len(state) == int.from_bytes(request.mask).bit_count():
            return state
        if request.frame:
            return model_record(parse(LOSSLESS).decode(request.frame, Layout.read(request.layout)))
        try:
            return model_record(split(initial(), request.mask)[1]) or None
        except FrameError:  # the node's initial model differs from the server's
            return None

    def before_app(self, request: PersonalLayersRequest, state: ArrayRecord, model: ArrayRecord) -> ArrayRecord:
        return ArrayRecord(join(model, state, request.mask))

    def after_app(
        self, request: PersonalLayersRequest, state: ArrayRecord, model: Update
    ) -> tuple[Update, ArrayRecord]:
        personal = {name: model[name] for name in state if name in model}
        check(personal, Layout.of(arrays_of(state)))
        return {name: array for name, array in model.items() if name not in personal}, model_record(personal)

    def reply(self, state: ArrayRecord | None) -> PersonalLayersReply:
        return PersonalLayersReply(owned=state is not None)


EXTENSION = PersonalLayersClient()


def split(model: Mapping[str, T], mask: bytes) -> tuple[dict[str, T], dict[str, T]]:
    """Return the shared and the personal part of a whole model; raise FrameError if `mask` is not of this model."""
    bits = read_mask(mask, len(model))
    shared: dict[str, T] = {}
    own: dict[str, T] = {}
    for (name, array), personal in zip(model.items(), bits, strict=True):
        (own if personal else shared)[name] = array
    return shared, own


def join(shared: Mapping[str, T], own: Mapping[str, T], mask: bytes) -> dict[str, T]:
    """Return the whole model, its tensors in their order; raise FrameError if these are not the parts of `mask`."""
    bits = read_mask(mask, len(shared) + len(own))
    if sum(bits) != len(own):
        raise FrameError(f"the mask must have as many personal tensors as the node, {len(own)}, got {sum(bits)}")
    parts = iter(own.items()), iter(shared.items())
    return dict(next(parts[0] if personal else parts[1]) for personal in bits)


def check(own: Mapping[str, np.ndarray], before: Layout) -> None:
    """Raise UpdateError if training changed the layout of the personal tensors, or left them not finite."""
    before.check(own)
    for tensor in before.floating:
        if not np.isfinite(own[tensor.name]).all():
            raise UpdateError(f"tensor {tensor.name!r}, which stays on the node, holds NaN or infinity")
