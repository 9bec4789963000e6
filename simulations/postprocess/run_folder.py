"""A folder that holds a model: that of a run, or one made from it, with its plan."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from fedpress.common.checked_files import read_json
from fedpress.common.errors import DataError, SettingError
from fedpress.compression.model.plan import PLAN, Plan
from fedpress.server.run.recorder import MODEL, RESULT, SCHEMA
from fedpress.settings import RunSettings
from fedpress.simulations.workloads import WorkloadTask, task
from fedpress.simulations.workloads.initial_model import loader_of


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
    # The plan starts from the workload's model, even if the run started from another one.
    work = task(settings.change("simulation", start="").change("run", device="cpu"))
    plan = Plan.read(path / PLAN) if (path / PLAN).is_file() else Plan()
    model = loader_of(path, work.model, work.data.train.x[:1])()
    return RunFolder(path, result, work, plan, model)
