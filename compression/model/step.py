"""The base class of a plan's steps, functions that read and check their JSON, and the choice of a step."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch import nn

from fedpress.common.errors import PlanError

Json = Any  # a value that json.loads returns


class Step(ABC):
    """One change to a model, as a frozen dataclass: the change depends on its fields alone."""

    kind: ClassVar[str]

    @classmethod
    @abstractmethod
    def read(cls, data: Mapping[str, Json]) -> Self:
        """Return the step that `data`, a JSON object without its kind, describes; raise PlanError."""

    @abstractmethod
    def json(self) -> dict[str, Json]:
        """Return the step as a JSON object for `read`."""

    @abstractmethod
    def apply(self, model: nn.Module, *, fill: bool) -> None:
        """Change `model` in place; without `fill` only the shapes of its weights are those of the result.

        Raises
        ------
        PlanError
            If the model has no such layer, or the layer is of a kind or size that the step cannot change.
        """


@dataclass(frozen=True)
class Choice:
    """A step that a method chose for a model, and its parts as separate steps, by the name of their layer."""

    step: Step
    parts: Mapping[str, Step]
    left: Mapping[str, str]  # the reason for each layer that was not changed, or less than requested


def layer_of(model: nn.Module, name: str) -> nn.Module:
    """Return the module `name` of `model`; raise PlanError if the model has none."""
    known = dict(model.named_modules())
    if not name or name not in known:
        layers = ", ".join(
            known_name for known_name, module in known.items() if known_name and not any(module.children())
        )
        raise PlanError(f"layers of a plan must be in the model, got {name!r}: its layers are {layers}")
    found: nn.Module = known[name]
    return found


def put(model: nn.Module, name: str, module: nn.Module) -> None:
    """Replace the module `name` of `model` by `module`."""
    above, _, last = name.rpartition(".")
    setattr(model.get_submodule(above), last, module)


def objects(data: Mapping[str, Json], kind: str, keys: set[str]) -> dict[str, dict[str, Json]]:
    """Return the entries of `data["layers"]`, by layer: JSON objects with exactly `keys`; raise PlanError."""
    layers = data.get("layers")
    if set(data) != {"layers"} or not isinstance(layers, dict) or not layers:
        raise PlanError(f"a step of kind {kind!r} must have 'layers', an object that is not empty, and nothing else")
    for name, entry in layers.items():
        if not isinstance(entry, dict) or set(entry) != keys:
            raise PlanError(
                f"layer {name!r} of a step of kind {kind!r} must have {', '.join(sorted(keys))}, got {entry!r:.80}"
            )
    return layers


def whole(value: Json, what: str, least: int) -> int:
    """Return `value` if it is a whole number of at least `least`; raise PlanError if not."""
    if type(value) is not int or value < least:
        raise PlanError(f"{what} must be a whole number of at least {least}, got {value!r:.80}")
    return value


def wholes(value: Json, what: str, least: int) -> tuple[int, ...]:
    """Return `value` as a tuple if it is a list of whole numbers of at least `least`, not empty; raise PlanError."""
    if not isinstance(value, list) or not value:
        raise PlanError(f"{what} must be a list of whole numbers, got {value!r:.80}")
    return tuple(whole(number, what, least) for number in value)
