"""The step that leaves layers out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

from torch import nn

from fedpress.compression.errors import PlanError
from fedpress.compression.model.step import Json, Step, layer_of, put


@dataclass(frozen=True)
class Drop(Step):
    """Puts nothing in the place of layers: what goes in comes out."""

    kind: ClassVar[str] = "drop"
    layers: tuple[str, ...]

    @classmethod
    def read(cls, data: Mapping[str, Json]) -> Self:
        layers = data.get("layers")
        if set(data) != {"layers"} or not isinstance(layers, list) or not layers:
            raise PlanError("a step of kind 'drop' has 'layers', a list that is not empty, and nothing else")
        if not all(isinstance(name, str) for name in layers):
            raise PlanError(f"a layer to drop is named by text, got {layers!r:.80}")
        return cls(tuple(layers))

    def json(self) -> dict[str, Json]:
        return {"layers": list(self.layers)}

    def apply(self, model: nn.Module, *, fill: bool) -> None:
        for name in self.layers:
            layer_of(model, name)
            put(model, name, nn.Identity())
