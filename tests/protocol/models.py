"""Models of every kind of tensor, for the laws of frames."""

import numpy as np

from fedpress.compression import Layout, Update
from fedpress.compression.updates import representable
from fedpress.compression.weight_masks import WeightMasks, prunable

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
