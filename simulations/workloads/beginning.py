"""What a run begins with if not with fresh weights: a model in a folder, a run's or one that was made smaller."""

from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from fedpress.compression.errors import DataError
from fedpress.compression.model import Plan
from fedpress.compression.model.plan import PLAN
from fedpress.server.record import MODEL


def begun(folder: Path, make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """Return what makes the model of `folder` of the workload's own, which `make` makes.

    Raises
    ------
    DataError
        If there is no such model, or it is of another one than the workload's.
    """
    plan = Plan.read(folder / PLAN) if (folder / PLAN).is_file() else Plan()
    try:
        weights = load_file(folder / MODEL)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{folder / MODEL} cannot be read: {error}") from error
    wrong = [name for name, tensor in weights.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if wrong:
        raise DataError(f"{folder / MODEL} holds numbers that are none, in {wrong[0]}")

    def model() -> nn.Module:
        made = plan.build(make())
        try:
            made.load_state_dict(weights)
        except RuntimeError as error:  # torch says it in many lines
            line = " ".join(str(error).split())[:300]
            raise DataError(f"{folder / MODEL} is not of the model that it is said to be: {line}") from error
        return made

    model()
    return model
