"""Comparison of a model before and after a plan, by layer: shapes, parameters, FLOPs, accuracy; and latency."""

import math
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from fedpress.compression.model.evaluation import Batches, accuracy_by_class
from fedpress.compression.model.plan import Plan
from fedpress.compression.model.step import Choice
from fedpress.compression.model.weight_sharing import unpack

_ROUNDS = 30  # of a latency: each model in turn


def parameters(model: nn.Module) -> int:
    """Return the number of a model's parameters; shared weights count as often as they are used."""
    return sum(p.numel() for p in unpack(model).parameters())


def flops(model: nn.Module, x: Tensor) -> int:
    """Return the floating-point operations for one example; a multiplication and an addition are two.

    Convolutions and matrix products are counted, also those of attention; those of recurrent layers are not: torch runs
    them as one call.
    """
    return _count(unpack(model), x[:1])[0]


def layers(before: nn.Module, after: nn.Module, x: Tensor) -> list[dict[str, Any]]:
    """Return shape, parameters and FLOPs of each layer of `before` that has weights, in both models.

    Modules within a layer count there, unless they have a row.
    """
    before, after = unpack(before), unpack(after)
    names = [name for name, module in before.named_modules() if any(True for _ in module.parameters(recurse=False))]
    sides = {side: _rows(names, model, x[:1]) for side, model in (("before", before), ("after", after))}
    return [{"layer": name, **{side: rows[name] for side, rows in sides.items()}} for name in names]


def effects(model: nn.Module, choice: Choice, batches: Batches, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the change of the accuracy on each class by each part of a choice alone."""
    whole = accuracy_by_class(model, batches, len(names))
    rows = []
    for layer, step in choice.parts.items():
        after = accuracy_by_class(Plan((step,)).apply(model), batches, len(names))
        lost = [a - b for a, b in zip(after, whole, strict=True)]
        rows.append({"layer": layer, "classes": named(lost[:-1], names), "accuracy": lost[-1]})
    return rows


def named(values: Sequence[float], names: Sequence[str]) -> dict[str, float | None]:
    """Return values by name, with None, which JSON has, for nan."""
    return {name: None if math.isnan(value) else round(value, 6) for name, value in zip(names, values, strict=True)}


def latency(models: Mapping[str, nn.Module], x: Tensor) -> dict[str, float]:
    """Return the milliseconds of the fastest call of each model for the batch `x`, measured in turn.

    The fastest call excludes the time of other work on the machine. Shared weights are unpacked first, as on a device.
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
    return {name: 1000 * min(taken) for name, taken in times.items()}


def _rows(names: Sequence[str], model: nn.Module, x: Tensor) -> dict[str, dict[str, Any]]:
    """Return shape, parameters and FLOPs of each layer of `names`; empty for a layer that was dropped."""
    work, parts = _count(model, x)[1], dict[str, list[nn.Parameter]]({name: [] for name in names})
    flops = dict.fromkeys(names, 0)
    for layer, module in model.named_modules():
        row = _above(layer, names)
        if row is not None:
            parts[row] += module.parameters(recurse=False)
            flops[row] += work.get(layer, 0)
    return {
        name: {
            "shape": [list(p.shape) for p in mine if p.dim() > 1] or [list(p.shape) for p in mine],
            "parameters": sum(p.numel() for p in mine),
            "flops": flops[name],
        }
        for name, mine in parts.items()
    }


def _count(model: nn.Module, x: Tensor) -> tuple[int, dict[str, int]]:
    """Return the FLOPs of the model, and those of each module without the modules within."""
    model.eval()
    root, fused = type(model).__name__, torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # transformers would run as one call, which is not counted
    try:
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
            model(x)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    found = {name: sum(ops.values()) for name, ops in counter.get_flop_counts().items() if name != "Global"}
    counts = {"" if name == root else name.removeprefix(root + "."): count for name, count in found.items()}
    own = dict(counts)
    for name, count in counts.items():
        above = _above(name.rpartition(".")[0], counts) if name else None
        if above is not None:
            own[above] -= count
    return counter.get_total_flops(), own


def _above(layer: str, names: Collection[str]) -> str | None:
    """Return `layer` if it is one of `names`, else the nearest of them that contains it, else None."""
    while layer not in names:
        if not layer:
            return None
        layer = layer.rpartition(".")[0]
    return layer
