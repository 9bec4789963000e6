"""The step that drops layers."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

from torch import Tensor, nn

from fedpress.common.errors import PlanError, SettingError
from fedpress.compression.model.evaluation import Batches, loss_on, shapes
from fedpress.compression.model.step import Choice, Json, Step, layer_of, put


@dataclass(frozen=True)
class DropLayers(Step):
    """Replaces layers by the identity."""

    kind: ClassVar[str] = "drop"
    layers: tuple[str, ...]

    @classmethod
    def read(cls, data: Mapping[str, Json]) -> Self:
        layers = data.get("layers")
        if set(data) != {"layers"} or not isinstance(layers, list) or not layers:
            raise PlanError("a step of kind 'drop' must have 'layers', a list that is not empty, and nothing else")
        if not all(isinstance(name, str) for name in layers):
            raise PlanError(f"names of layers to drop must be text, got {layers!r:.80}")
        return cls(tuple(layers))

    def json(self) -> dict[str, Json]:
        return {"layers": list(self.layers)}

    def apply(self, model: nn.Module, *, fill: bool) -> None:
        for name in self.layers:
            layer_of(model, name)
            put(model, name, nn.Identity())


def choose(model: nn.Module, x: Tensor, count: int, batches: Batches) -> Choice:
    """Return the step that drops `count` layers or blocks, one after another the one with the least effect on the loss.

    Only layers whose output has the shape of their input can be dropped: the blocks of a residual network, and often
    none of a plain one.

    Raises
    ------
    SettingError
        If `count` is below 1, or the model has fewer layers that can be dropped.
    """
    if count < 1:
        raise SettingError(f"layers to drop must be at least 1, got {count}")
    could = candidates(model, x)
    dropped: list[str] = []
    losses: dict[str, str] = {}
    while len(dropped) < count:
        open_ = [name for name in could if not any(_within(name, gone) or _within(gone, name) for gone in dropped)]
        if not open_:
            can = (
                f"its layers with outputs of the shape of their inputs are {', '.join(could)}"
                if could
                else "it has none with outputs of the shape of its inputs"
            )
            raise SettingError(f"{count} layers cannot be dropped from this model: {can}")
        missed = {name: loss_on(_without(model, (*dropped, name)), batches) for name in open_}
        dropped.append(min(missed, key=missed.__getitem__))
        losses = {name: f"the loss would be {value:.4f}" for name, value in missed.items() if name != dropped[-1]}
    return Choice(DropLayers(tuple(dropped)), {name: DropLayers((name,)) for name in dropped}, losses)


def candidates(model: nn.Module, x: Tensor) -> list[str]:
    """Return the layers and blocks with weights whose output has the shape of their input."""
    found = []
    for name, (taken, given) in shapes(model, x).items():
        weights = (p for p in model.get_submodule(name).parameters() if p.dim() > 1)
        if name and taken == given and next(weights, None) is not None:
            found.append(name)
    return found


def _without(model: nn.Module, names: tuple[str, ...]) -> nn.Module:
    less = copy.deepcopy(model)
    DropLayers(names).apply(less, fill=True)
    return less


def _within(name: str, other: str) -> bool:
    return name == other or name.startswith(other + ".")
