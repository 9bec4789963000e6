"""What a method chose to do to a model, as a whole and part by part."""

from collections.abc import Mapping
from dataclasses import dataclass

from fedpress.compression.model.step import Step


@dataclass(frozen=True)
class Choice:
    """A step, and the steps of which each does one part of it alone, named by the layer that it is about."""

    step: Step
    parts: Mapping[str, Step]
    left: Mapping[str, str]  # layers that were left alone, or done by less than was wanted, and why
