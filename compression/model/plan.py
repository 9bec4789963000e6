"""A plan: the steps from the workload's model to a smaller one, as JSON, stored with the weights."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from torch import nn

from fedpress.common.checked_files import read_json, write_json
from fedpress.common.errors import DataError, PlanError, unknown
from fedpress.compression.model.factor_layers import Factorise
from fedpress.compression.model.prune_channels import Prune
from fedpress.compression.model.step import Json, Step
from fedpress.compression.model.weight_sharing import ShareWeights

PLAN = "plan.json"  # in a model's folder
SCHEMA = 1
KINDS: Mapping[str, type[Step]] = {step.kind: step for step in (Prune, Factorise, ShareWeights)}
_MOST = 1 << 26  # bytes of a plan


@dataclass(frozen=True)
class Plan:
    """Steps, applied one after another; names of layers are those of the model that a step is applied to."""

    steps: tuple[Step, ...] = ()

    @classmethod
    def of(cls, data: Json) -> Self:
        """Return the plan that `json` returned as `data`; raise PlanError if it is not valid."""
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            raise PlanError(f"a plan must be a JSON object of schema {SCHEMA}")
        steps = data.get("steps")
        if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
            raise PlanError("a plan must have 'steps', a list of objects")
        return cls(tuple(_step(step) for step in steps))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the plan in the file `path`; raise PlanError if it cannot be read or is not valid."""
        try:
            if path.stat().st_size > _MOST:
                raise PlanError(f"a plan must have at most {_MOST} bytes, got {path.stat().st_size}")
            return cls.of(read_json(path))
        except OSError as error:
            raise PlanError(f"{path} cannot be read: {error.strerror}") from error
        except DataError as error:
            raise PlanError(f"{path} must hold a plan: {error}") from error

    def write(self, path: Path) -> None:
        """Write the plan to the file `path`."""
        write_json(path, self.json(), indent=None, durable=True)

    def json(self) -> dict[str, Json]:
        """Return the plan as a JSON object for `of`."""
        return {"schema": SCHEMA, "steps": [{"kind": step.kind, **step.json()} for step in self.steps]}

    def then(self, *steps: Step) -> "Plan":
        """Return this plan with `steps` added at its end."""
        return Plan((*self.steps, *steps))

    def build(self, model: nn.Module) -> nn.Module:
        """Return the smaller model with the shapes of its weights, to load weights into.

        Raises
        ------
        PlanError
            If `model` has no such layers, or layers of a kind or size that the steps cannot change.
        """
        return self._made(model, fill=False)

    def apply(self, model: nn.Module) -> nn.Module:
        """Return the smaller model, with weights from `model`; raise PlanError as `build` does."""
        return self._made(model, fill=True)

    def _made(self, model: nn.Module, *, fill: bool) -> nn.Module:
        made = copy.deepcopy(model)
        for step in self.steps:
            step.apply(made, fill=fill)
        return made


def _step(data: Mapping[str, Json]) -> Step:
    kind = data.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise PlanError(unknown("kind of step", str(kind), KINDS))
    return KINDS[kind].read({key: value for key, value in data.items() if key != "kind"})
