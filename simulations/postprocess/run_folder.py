"""A folder that holds a model: that of a run, or one made from it, with its plan; read and written."""

import json
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import nn

from fedpress.common.checked_files import FIELD, read_json, stamped, write_json
from fedpress.common.errors import DataError, SettingError
from fedpress.common.files import make_folder, replace
from fedpress.common.logs import LOGGER
from fedpress.common.version import versions
from fedpress.compression.model.plan import PLAN, Plan
from fedpress.server.run.recorder import MODEL, RESULT, SCHEMA
from fedpress.settings import RunSettings
from fedpress.simulations.run_files import REPORT, clear
from fedpress.simulations.workloads import WorkloadTask, task
from fedpress.simulations.workloads.initial_model import loader_of

_log = logging.getLogger(LOGGER)


@dataclass(frozen=True)
class RunFolder:
    """The content of a folder with a model."""

    path: Path
    result: Mapping[str, Any]  # of result.json
    task: WorkloadTask
    plan: Plan  # the steps from the workload's model to this one; none if they are the same
    model: nn.Module  # with its weights, on the CPU

    @property
    def settings(self) -> RunSettings:
        """The settings of the run that the model comes from."""
        return RunSettings.from_config(self.result["config"])


def read_folder(path: Path) -> RunFolder:
    """Return the content of the folder `path`.

    Code that its settings name as `package.module:object` is imported, after a warning.

    Raises
    ------
    SettingError
        If it holds no run.
    DataError
        If its files cannot be read or do not fit together, or the workload's data is missing.
    """
    missing = [name for name in (RESULT, MODEL) if not (path / name).is_file()]
    if missing:
        raise SettingError(
            f"{path} holds no run: {' and '.join(missing)} missing; make one with fedpress simulate --out"
        )
    result = read_json(path / RESULT)
    config = result.get("config") if result.get("schema") == SCHEMA else None
    if not isinstance(config, dict) or "simulation.workload" not in config:
        raise DataError(f"{path / RESULT} must be a run's result of schema {SCHEMA}, with its workload")
    try:
        settings = RunSettings.from_config(config)
    except SettingError as error:
        raise DataError(f"{path / RESULT} has invalid settings: {error}") from error
    own = [name for name in (settings.simulation.workload, settings.simulation.model) if ":" in name]
    if new := [name for name in own if name.partition(":")[0] not in sys.modules]:
        _log.warning("%s names code, which is imported from this machine: %s", path / RESULT, ", ".join(new))
    # The plan starts from the workload's model, even if the run started from another one.
    work = task(settings.change("simulation", start="").change("run", device="cpu"))
    plan = Plan.read(path / PLAN) if (path / PLAN).is_file() else Plan()
    model = loader_of(path, work.model, work.data.train.x[:1])()
    return RunFolder(path, result, work, plan, model)


def weights_of(model: nn.Module) -> bytes:
    """Return the content of a model's file."""
    return b"".join(stamped(save({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, FIELD)))


def write_folder(
    out: Path,
    weights: bytes,
    settings: RunSettings,
    final: Mapping[str, Any],
    about: Mapping[str, Any],
    *,
    force: bool,
    plan: Plan | None = None,
    report: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write a model made from a run's to the folder `out`; return the content of its result.json.

    With `force`, the model that the folder holds is removed first. `about` is added to the result, which is written
    last; `plan` and `report` are files of a shrunk model.
    """
    result = {
        "schema": SCHEMA,
        "config": settings.to_result(),
        "versions": versions(),
        "rounds": [],
        "final": {name: final[name] for name in ("accuracy", "loss")},
        **about,
    }
    make_folder(out)
    if force:
        clear(out)
    replace(out / MODEL, weights, durable=True)
    if plan is not None:
        plan.write(out / PLAN)
    if report is not None:
        replace(out / REPORT, json.dumps(report, indent=1).encode())
    write_json(out / RESULT, result, durable=True)
    return result
