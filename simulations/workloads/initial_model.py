"""The initial model of a run that starts from a folder: the model of a run, or a smaller one made from it."""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from fedpress.common.checked_files import read_checked
from fedpress.common.errors import DataError, PlanError, SettingError
from fedpress.compression.model.plan import PLAN, Plan
from fedpress.compression.model.weight_sharing import check_places
from fedpress.server.run.recorder import MODEL


def loader_of(folder: Path, make: Callable[[], nn.Module], x: Tensor) -> Callable[[], nn.Module]:
    """Return a function that builds the model loaded from `folder`; `make` builds the workload's model.

    The folder is not trusted, so the model is first run on the inputs `x`.

    Raises
    ------
    SettingError
        If the folder holds no model.
    DataError
        If the model cannot be read, was not made from the workload's, or does not run.
    """
    if not (folder / MODEL).is_file():
        raise SettingError(f"start must be a folder that holds {MODEL}, got {str(folder)!r}")
    plan = Plan.read(folder / PLAN) if (folder / PLAN).is_file() else Plan()
    try:
        weights = load(read_checked(folder / MODEL))
    except SafetensorError as error:
        raise DataError(f"{folder / MODEL} cannot be read: {error}") from error
    invalid = [name for name, tensor in weights.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if invalid:
        raise DataError(f"{folder / MODEL} holds numbers that are not finite, in {invalid[0]}")

    def model() -> nn.Module:
        try:
            built = plan.build(make())
        except PlanError as error:
            raise PlanError(f"{folder / PLAN} is not of this workload's model: {error}") from error
        try:
            built.load_state_dict(weights)
        except RuntimeError as error:  # torch's message has many lines
            line = " ".join(str(error).split())[:300]
            raise DataError(f"{folder / MODEL} does not fit the workload's model and its plan: {line}") from error
        return built

    _check_runs(folder, model(), make(), x)
    return model


def _check_runs(folder: Path, model: nn.Module, whole: nn.Module, x: Tensor) -> None:
    """Raise DataError if `model` does not run, or its scores have another shape than those of `whole`."""
    try:
        check_places(model)
    except DataError as error:
        raise DataError(f"{folder / MODEL} does not fit the workload's model and its plan: {error}") from error
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # an engine that forks its workers later needs a process of one thread
    try:
        with torch.no_grad():
            expected, scores = whole.eval()(x), model.eval()(x)
    except Exception as error:
        line = " ".join(str(error).split())[:300]
        raise DataError(f"{folder} holds a model that does not run, its layers do not fit: {line}") from error
    finally:
        torch.set_num_threads(threads)
    if scores.shape != expected.shape:
        shapes = [tuple(tensor.shape) for tensor in (scores, expected)]
        raise DataError(f"{folder} holds a model with scores of shape {shapes[0]}, the workload's has {shapes[1]}")
