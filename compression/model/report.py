"""What was done to a model, layer by layer: shapes, parameters, FLOPs, classes; and what it made faster."""

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fedpress.compression.model.choice import Choice
from fedpress.compression.model.looking import Batches, by_class
from fedpress.compression.model.plan import Plan
from fedpress.compression.model.sharing import unpack

_ROUNDS = 30  # of a latency: each model in turn


def parameters(model: nn.Module) -> int:
    """Return how many numbers a model's weights are; what shares a value counts as often as it is used."""
    return sum(p.numel() for p in unpack(model).parameters())


def flops(model: nn.Module, x: Tensor) -> int:
    """Return the floating-point operations of one example, a multiplication and an addition being two.

    Convolutions and matrix products are counted; those of recurrent layers are not, which torch runs as one call.
    """
    return sum(_flops(unpack(model), x[:1]).values())


def layers(before: nn.Module, after: nn.Module, x: Tensor) -> list[dict[str, Any]]:
    """Return what became of each layer of `before` that has weights: shape, parameters and FLOPs of both models."""
    before, after = unpack(before), unpack(after)
    work, left = (_flops(before, x[:1]), _flops(after, x[:1])), dict(after.named_modules())
    rows = []
    for name, module in before.named_modules():
        if not any(True for _ in module.parameters(recurse=False)):
            continue
        now = left.get(name, nn.Identity())  # of a block that was dropped nothing is left
        rows.append({"layer": name, "before": _row(name, module, work[0]), "after": _row(name, now, work[1])})
    return rows


def effects(model: nn.Module, choice: Choice, batches: Batches, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return what each part of a choice, done alone, does to the accuracy on each class: a difference."""
    whole = by_class(model, batches, len(names))
    rows = []
    for layer, step in choice.parts.items():
        after = by_class(Plan((step,)).apply(model), batches, len(names))
        lost = [a - b for a, b in zip(after, whole, strict=True)]
        rows.append({"layer": layer, "classes": named(lost[:-1], names), "accuracy": lost[-1]})
    return rows


def named(values: Sequence[float], names: Sequence[str]) -> dict[str, float | None]:
    """Return values by name; None, which JSON knows, for what is not a number."""
    return {name: None if math.isnan(value) else round(value, 6) for name, value in zip(names, values, strict=True)}


def latency(models: Mapping[str, nn.Module], x: Tensor) -> dict[str, float]:
    """Return the median milliseconds that each model takes for the batch `x`, measured in turn in one go.

    Shared weights are unpacked first, as a device does that runs them.
    """
    ready = {name: unpack(model).eval() for name, model in models.items()}
    times: dict[str, list[float]] = {name: [] for name in ready}
    with torch.inference_mode():
        for _ in range(3):  # the first calls choose their kernels
            for model in ready.values():
                model(x)
        for _ in range(_ROUNDS):
            for name, model in ready.items():
                begin = time.perf_counter()
                model(x)
                times[name].append(time.perf_counter() - begin)
    return {name: 1000 * statistics.median(taken) for name, taken in times.items()}


def _row(name: str, module: nn.Module, work: Mapping[str, int]) -> dict[str, Any]:
    mine = (count for layer, count in work.items() if layer == name or layer.startswith(name + "."))
    return {
        "shape": [list(p.shape) for p in module.parameters() if p.dim() > 1]
        or [list(p.shape) for p in module.parameters()],
        "parameters": sum(p.numel() for p in module.parameters()),
        "flops": sum(mine),
    }


def _flops(model: nn.Module, x: Tensor) -> dict[str, int]:
    """Return the FLOPs of each layer that has any and no layer within."""
    model.eval()
    root = type(model).__name__
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x)
    counts = {name: sum(ops.values()) for name, ops in counter.get_flop_counts().items()}
    leaves = [name for name in counts if not any(other.startswith(name + ".") for other in counts)]
    return {name.removeprefix(root + "."): counts[name] for name in leaves if name != "Global"}
