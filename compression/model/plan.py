"""A plan: how a smaller model is made from the workload's own. JSON, so that it can lie beside the weights."""

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from torch import nn

from fedpress.common.errors import PlanError, unknown
from fedpress.common.files import replace
from fedpress.compression.model.factor_layers import Factorise
from fedpress.compression.model.layer_dropping import Drop
from fedpress.compression.model.prune_channels import Prune
from fedpress.compression.model.step import Json, Step
from fedpress.compression.model.weight_sharing import Share

PLAN = "plan.json"  # in a model's folder
SCHEMA = 1
KINDS: Mapping[str, type[Step]] = {step.kind: step for step in (Prune, Factorise, Share, Drop)}
_MOST = 1 << 26  # bytes of a plan


@dataclass(frozen=True)
class Plan:
    """Steps, taken one after another; a layer's name is the one that it has when its step's turn comes."""

    steps: tuple[Step, ...] = ()

    @classmethod
    def of(cls, data: Json) -> Self:
        """Return the plan that `data`, as `json` returns it, describes; raise PlanError if it is none."""
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            raise PlanError(f"a plan is a JSON object of schema {SCHEMA}")
        steps = data.get("steps")
        if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
            raise PlanError("a plan has 'steps', a list of objects")
        return cls(tuple(_step(step) for step in steps))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the plan in the file `path`; raise PlanError if it cannot be read or is none."""
        try:
            if path.stat().st_size > _MOST:
                raise PlanError(f"it is {path.stat().st_size} bytes, and a plan has at most {_MOST}")
            return cls.of(json.loads(path.read_bytes()))
        except OSError as error:
            raise PlanError(f"{path} cannot be read: {error.strerror}") from error
        except (PlanError, ValueError, RecursionError) as error:  # the latter two of json
            raise PlanError(f"{path} is no plan: {error}") from error

    def write(self, path: Path) -> None:
        """Write the plan to the file `path`."""
        replace(path, (json.dumps(self.json()) + "\n").encode())

    def json(self) -> dict[str, Json]:
        """Return what `of` takes."""
        return {"schema": SCHEMA, "steps": [{"kind": step.kind, **step.json()} for step in self.steps]}

    def then(self, *steps: Step) -> "Plan":
        """Return this plan with `steps` after its own."""
        return Plan((*self.steps, *steps))

    def build(self, model: nn.Module) -> nn.Module:
        """Return a model with the names and shapes that the plan gives `model`'s, to load weights into.

        Raises
        ------
        PlanError
            If `model` has no such layers, or they are not of a kind or size that the steps suit.
        """
        return self._made(model, fill=False)

    def apply(self, model: nn.Module) -> nn.Module:
        """Return the smaller model, its weights made of `model`'s; raise PlanError as `build` does."""
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
