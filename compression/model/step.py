"""The steps of a plan: one change each to a model's modules, read from JSON and checked, and the choice of one."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch import nn

from fedpress.common.errors import PlanError

Json = Any  # what json.loads returns


class Step(ABC):
    """One change to a model. A frozen dataclass: its fields are all that the change depends on."""

    kind: ClassVar[str]

    @classmethod
    @abstractmethod
    def read(cls, data: Mapping[str, Json]) -> Self:
        """Return the step that `data`, a JSON object without its kind, describes; raise PlanError if it is none."""

    @abstractmethod
    def json(self) -> dict[str, Json]:
        """Return what `read` takes."""

    @abstractmethod
    def apply(self, model: nn.Module, *, fill: bool) -> None:
        """Change `model` in place; with `fill` its weights too, else only their shapes count.

        Raises
        ------
        PlanError
            If the model has no such layer, or the layer is not of a kind or size that this can be done to.
        """


@dataclass(frozen=True)
class Choice:
    """The step that a method chose for a model, and steps that do one part of it each, by the layer they change."""

    step: Step
    parts: Mapping[str, Step]
    left: Mapping[str, str]  # layers that were left alone, or done by less than was wanted, and why


def layer_of(model: nn.Module, name: str) -> nn.Module:
    """Return the module `name` of `model`; raise PlanError if there is none."""
    known = dict(model.named_modules())
    if not name or name not in known:
        layers = ", ".join(
            known_name for known_name, module in known.items() if known_name and not any(module.children())
        )
        raise PlanError(f"the plan names a layer {name!r}, which the model does not have: its layers are {layers}")
    found: nn.Module = known[name]
    return found


def put(model: nn.Module, name: str, module: nn.Module) -> None:
    """Let `module` take the place of the module `name` of `model`."""
    above, _, last = name.rpartition(".")
    setattr(model.get_submodule(above), last, module)


def objects(data: Mapping[str, Json], kind: str, keys: set[str]) -> dict[str, dict[str, Json]]:
    """Return the entries of `data["layers"]`, by layer: JSON objects with `keys` and no other."""
    layers = data.get("layers")
    if set(data) != {"layers"} or not isinstance(layers, dict) or not layers:
        raise PlanError(f"a step of kind {kind!r} has 'layers', an object that is not empty, and nothing else")
    for name, entry in layers.items():
        if not isinstance(entry, dict) or set(entry) != keys:
            raise PlanError(
                f"layer {name!r} of a step of kind {kind!r} has {', '.join(sorted(keys))}, got {entry!r:.80}"
            )
    return layers


def whole(value: Json, what: str, least: int) -> int:
    """Return `value` if it is a whole number of at least `least`; raise PlanError if not."""
    if type(value) is not int or value < least:
        raise PlanError(f"{what} is a whole number, at least {least}, got {value!r:.80}")
    return value


def wholes(value: Json, what: str, least: int) -> tuple[int, ...]:
    """Return `value` as a tuple if it is a list of whole numbers, each at least `least`, that is not empty."""
    if not isinstance(value, list) or not value:
        raise PlanError(f"{what} is a list of whole numbers, got {value!r:.80}")
    return tuple(whole(number, what, least) for number in value)
