"""`fedpress distil`: another of the workload's models, trained by distillation from a run's model."""

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from fedpress.client.training.loop import evaluate
from fedpress.common.errors import SettingError
from fedpress.common.files import output_folder
from fedpress.common.rng import derive
from fedpress.common.settings import require
from fedpress.compression.model.distill.settings import StudentSettings
from fedpress.compression.model.distill.training import train_student
from fedpress.extensions.distillation.settings import PROXY as PROXY_EXAMPLES
from fedpress.simulations.postprocess import Progress
from fedpress.simulations.postprocess.run_folder import RunFolder, read_folder, weights_of, write_folder
from fedpress.simulations.run_files import check_made
from fedpress.simulations.settings import check_device
from fedpress.simulations.workloads import Examples, find
from fedpress.simulations.workloads.task import constructors

TRAIN, PROXY = "train", "proxy"
_MOST = 1 << 40  # inputs of a folder: all of them


def distil_run(
    source: Path,
    model: str,
    out: Path,
    student_settings: StudentSettings,
    *,
    on: str = TRAIN,
    holdout: float = 0.1,
    seed: int | None = None,
    device: str = "cpu",
    force: bool = False,
    progress: Progress = lambda _: None,
) -> dict[str, Any]:
    """Distil a run's model into another of the workload's models, and write that to a separate folder.

    Parameters
    ----------
    source : Path
        The run's folder, with the teacher.
    model : str
        Name of the student, one of the workload's models.
    out : Path
        The folder of the student.
    student_settings : StudentSettings
        How the student is trained.
    on : str
        "train" for the training examples, "proxy" for those that the run held back, "mnist" or "folder:PATH"; all but
        the first are without targets.
    holdout : float
        Share of the training examples, in [0, 1), that is held out to evaluate the student.
    seed : int, optional
        Seed of the student; the run's if None.
    device : str
        Torch's name of the device.
    force : bool
        Whether to overwrite a model in `out`.
    progress : callable
        Called with lines of progress.

    Returns
    -------
    dict of str to Any
        The content of the student's result.json.

    Raises
    ------
    SettingError
        If `source` holds no run, `out` holds one and `force` is False, or the settings do not fit the models.
    DataError
        If a file cannot be read, or the data is missing.
    """
    check_device(device)
    require(0 <= holdout < 1, "holdout", "in [0, 1)", holdout)
    folder = read_folder(source)
    simulation = folder.settings.simulation
    makes = constructors(find(simulation.workload), replace(simulation, model=model))
    check_made(out, source, force=force)
    seed = folder.settings.run.seed if seed is None else seed
    # The student starts from new weights, whatever its teacher started from.
    settings = folder.settings.change("simulation", model=model, start="")
    settings = settings.change("run", seed=seed, out=str(out), resume=False)
    train, held_out = _split(folder, holdout)
    x, y = _inputs(folder, train, on)
    with output_folder(out, "command"):
        check_made(out, source, force=force)
        student = replace(folder.task, seed=seed, makes=makes).model(model)
        progress(
            f"distilling {source} into {model} on {len(x):,} examples{'' if y is not None else ' without targets'}"
        )
        began = time.monotonic()
        train_student(student, folder.model, x, y, student_settings, derive(seed, "student"), device, progress)
        seconds = time.monotonic() - began
        student.cpu(), folder.model.cpu()
        final = evaluate(student, folder.task.data.test, "cpu")
        report: dict[str, Any] = {
            "settings": asdict(student_settings),
            "on": on,
            "examples": len(x),
            "parameters": sum(p.numel() for p in student.parameters()),
            "seconds": seconds,
            "teacher": {
                "folder": str(source),
                "model": next(iter(folder.task.makes)),
                "parameters": sum(p.numel() for p in folder.model.parameters()),
                "accuracy": evaluate(folder.model, folder.task.data.test, "cpu")["accuracy"],
            },
        }
        if len(held_out):
            report["held_out"] = {
                role: evaluate(network, held_out, "cpu")["accuracy"]
                for role, network in (("student", student), ("teacher", folder.model))
            }
        return write_folder(out, weights_of(student), settings, final, {"student": report}, force=force)


def _split(folder: RunFolder, share: float) -> tuple[Examples, Examples]:
    """Return the remaining and the held-out training examples, which do not depend on the student's seed."""
    data = folder.task.data.train
    order = derive(folder.settings.run.seed, "student", "holdout").permutation(len(data))
    kept = int(share * len(order))
    return data.pick(np.sort(order[kept:])), data.pick(np.sort(order[:kept]))


def _inputs(folder: RunFolder, train: Examples, on: str) -> tuple[Tensor, Tensor | None]:
    """Return the inputs of distillation, and their targets if they have any."""
    if on == TRAIN:
        return train.x, train.y
    if on == PROXY:
        held_back = folder.task.held_back.get(PROXY_EXAMPLES)
        if held_back is None or not len(held_back):
            raise SettingError(
                f"{folder.path} held no examples back for distillation: --on must be {TRAIN}, mnist or folder:PATH"
            )
        return held_back.x, None
    if on != "mnist" and not on.startswith("folder:"):
        raise SettingError(f"on must be {TRAIN}, {PROXY}, mnist or folder:PATH, got {on!r}")
    return folder.task.unlabelled(on, _MOST), None
