"""What a run begins with if not with fresh weights: a model in a folder, a run's or one that was made smaller."""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from fedpress.common.errors import DataError, PlanError
from fedpress.compression.model.plan import PLAN, Plan
from fedpress.compression.model.weight_sharing import check_places
from fedpress.server.run.recorder import MODEL


def begun(folder: Path, make: Callable[[], nn.Module], x: Tensor) -> Callable[[], nn.Module]:
    """Return what makes the model of `folder` of the workload's own, which `make` makes.

    It may come from anywhere, so it is tried first, on an input or two, `x`.

    Raises
    ------
    DataError
        If there is no such model, it is of another one than the workload's, or does not run.
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
        try:
            made = plan.build(make())
        except PlanError as error:
            raise PlanError(f"{folder / PLAN} is not of this workload's model: {error}") from error
        try:
            made.load_state_dict(weights)
        except RuntimeError as error:  # torch says it in many lines
            line = " ".join(str(error).split())[:300]
            raise DataError(f"{folder / MODEL} is not of the model that it is said to be: {line}") from error
        return made

    _try(folder, model(), make(), x)
    return model


def _try(folder: Path, model: nn.Module, whole: nn.Module, x: Tensor) -> None:
    """Raise DataError if `model` does not answer as many questions as the workload's `whole` one does."""
    try:
        check_places(model)
    except DataError as error:
        raise DataError(f"{folder / MODEL} is not of the model that it is said to be: {error}") from error
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # an engine that forks its workers later cannot do so from a process that has more
    try:
        with torch.no_grad():
            wanted, found = whole.eval()(x), model.eval()(x)
    except Exception as error:
        line = " ".join(str(error).split())[:300]
        raise DataError(f"{folder} holds a model that does not run, its layers do not fit: {line}") from error
    finally:
        torch.set_num_threads(threads)
    if found.shape != wanted.shape:
        shapes = [tuple(scores.shape) for scores in (found, wanted)]
        raise DataError(f"{folder} holds a model with scores of shape {shapes[0]}, the workload's has {shapes[1]}")
