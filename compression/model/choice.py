"""The result of a method that chooses a step for a model."""

from collections.abc import Mapping
from dataclasses import dataclass

from fedpress.compression.model.step import Step


@dataclass(frozen=True)
class Choice:
    """A step, and its parts as separate steps, by the name of their layer."""

    step: Step
    parts: Mapping[str, Step]
    left: Mapping[str, str]  # the reason for each layer that was not changed, or less than requested
