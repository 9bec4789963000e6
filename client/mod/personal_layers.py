"""Layers that stay on this device, taken out of models that leave it and put into those that come.

FedPer, Arivazhagan et al. 2019, https://arxiv.org/abs/1912.00818; FedBN, Li et al. 2021,
https://arxiv.org/abs/2102.07623.
"""

from collections.abc import Mapping
from typing import TypeVar

import numpy as np

from fedpress.compression import FrameError, Layout, Update, UpdateError, parse
from fedpress.compression.layout import read_mask
from fedpress.protocol.messages import LOSSLESS

T = TypeVar("T")


def split(model: Mapping[str, T], mask: bytes) -> tuple[dict[str, T], dict[str, T]]:
    """Return what of a whole model is shared, and what is this device's own; raise FrameError if `mask` is no mask."""
    if not mask:
        return dict(model), {}
    bits = read_mask(mask, len(model))
    shared: dict[str, T] = {}
    own: dict[str, T] = {}
    for (name, array), personal in zip(model.items(), bits, strict=True):
        (own if personal else shared)[name] = array
    return shared, own


def join(shared: Mapping[str, T], own: Mapping[str, T], mask: bytes) -> dict[str, T]:
    """Return the whole model, its tensors in their order; raise FrameError if these are not the parts of `mask`."""
    if not mask:
        return dict(shared)
    bits = read_mask(mask, len(shared) + len(own))
    if sum(bits) != len(own):
        raise FrameError(f"{len(own)} tensors are kept on this device, the message's mask has {sum(bits)}")
    parts = iter(own.items()), iter(shared.items())
    return dict(next(parts[0] if personal else parts[1]) for personal in bits)


def begin(frame: bytes, layout: str) -> Update:
    """Return the tensors that a server's frame says this device begins with."""
    return parse(LOSSLESS).decode(frame, Layout.read(layout))


def check(own: Mapping[str, np.ndarray], before: Layout) -> None:
    """Raise UpdateError if what training made of the device's own tensors is not what they were, or not finite."""
    before.check(own)
    for tensor in before.floating:
        if not np.isfinite(own[tensor.name]).all():
            raise UpdateError(f"tensor {tensor.name!r}, which stays on this device, holds NaN or infinity")
