"""Models of every kind of tensor, for the laws of frames."""

import numpy as np

from fedpress.compression import Layout, Update
from fedpress.compression.updates import representable
from fedpress.compression.weight_masks import WeightMasks, prunable
from fedpress.protocol.messages import TrainRequest
from fedpress.protocol.model_frames import ModelFrames

SHAPES: dict[str, tuple[tuple[int, ...], str]] = {
    "weight": ((12, 7), "float32"),
    "conv": ((4, 3, 3, 3), "float32"),
    "bias": ((7,), "float32"),
    "scale": ((), "float64"),
    "wide": ((3, 5), "float64"),
    "1.running_var": ((4,), "float32"),
    "steps": ((), "int64"),
    "flags": ((9,), "bool"),
}


def a_model(rng: np.random.Generator, names: list[str], pruned: float) -> Update:
    """A model in which about this share of the weights that may be pruned are."""
    model: Update = {}
    for name in names:
        shape, dtype = SHAPES[name]
        model[name] = np.asarray(rng.normal(size=shape) * 3).astype(dtype)
    layout = Layout.of(model)
    masks = {t.name: rng.random(t.size) >= pruned for t in prunable(layout)} if pruned else {}
    return representable(WeightMasks(masks).apply(model), layout)


def same(one: Update, other: Update) -> bool:
    """Whether two models have the same tensors, in their order, bit for bit."""
    return [*one] == [*other] and all(one[name].tobytes() == other[name].tobytes() for name in one)


def request_of(frames: ModelFrames) -> TrainRequest:
    """A request that is sent with these frames."""
    return TrainRequest(
        arrays="arrays",
        frame_lengths=tuple(map(len, frames.frames)),
        frame_specs=frames.specs,
        frame_tensors=frames.tensors,
        weight_mask_length=len(frames.weight_mask),
        version=frames.version,
        layout="",
        weight_masks=False,
        keep=True,
        up="none",
        exclude=b"",
        accepted=b"",
        turn=0,
        server=b"",
        nonce=bytes(16),
        round=1,
        seed=0,
    )
