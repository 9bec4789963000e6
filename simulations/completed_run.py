"""Finished runs: the one that `fedpress.simulate` returns, and those that `fedpress runs` lists."""

import csv
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from fedpress.common.checked_files import read_json
from fedpress.common.errors import DataError, SettingError
from fedpress.common.logs import LOGGER
from fedpress.server.run.recorder import RESULT, TRAFFIC
from fedpress.settings import RunSettings
from fedpress.simulations.plots import plot
from fedpress.simulations.postprocess.run_folder import read_folder
from fedpress.simulations.run import run, settings_of

_log = logging.getLogger(LOGGER)


@dataclass(frozen=True)
class Run:
    """A finished simulation.

    Parameters
    ----------
    folder : Path
        The run's folder.
    result : mapping
        The content of its result.json.

    Examples
    --------
    >>> run = Run(Path("runs/first"), {"rounds": [{"round": 1, "accuracy": 0.5}]})
    >>> run.rounds[-1]["accuracy"]
    0.5
    """

    folder: Path
    result: Mapping[str, Any]

    @property
    def settings(self) -> RunSettings:
        """The settings of the run."""
        return RunSettings.from_config(self.result["config"])

    @property
    def rounds(self) -> list[dict[str, Any]]:
        """The rounds, each as result.json has it: accuracy, loss, bytes both ways, and more."""
        return list(self.result["rounds"])

    @property
    def clients(self) -> list[dict[str, str]]:
        """The rows of clients.csv, one for each client and round."""
        with (self.folder / TRAFFIC).open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    def plot(self) -> list[Path]:
        """Draw accuracy by round and by bytes into the run's folder.

        Returns
        -------
        list of Path
            The files of the pictures.
        """
        plot(dict(self.result), self.folder)
        return sorted(self.folder.glob("accuracy_*.png"))

    def model(self) -> nn.Module:
        """Return the trained model, as clients can reconstruct it.

        Returns
        -------
        torch.nn.Module
            The model, on the CPU.

        Raises
        ------
        DataError
            If the folder's model cannot be read, or the workload's data is missing.
        """
        return read_folder(self.folder).model


def simulate(settings: Mapping[str, Any]) -> Run:
    """Simulate a federation and return the run.

    Parameters
    ----------
    settings : mapping of str to Any
        Settings by their keys, with `_` for `-`, or tables of them by section.

    Returns
    -------
    Run
        The finished run.

    Examples
    --------
    >>> simulate({"rounds": 0})  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    SettingError: rounds must be at least 1, got 0
    """
    chosen = settings_of(_with_dashes(settings))
    result = run(chosen)
    return Run(Path(RunSettings.from_config(result["config"]).run.out), result)


def _with_dashes(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name.replace("_", "-"): _with_dashes(value) if isinstance(value, Mapping) else value
        for name, value in settings.items()
    }


@dataclass(frozen=True)
class RunSummary:
    """One line on a run.

    Examples
    --------
    >>> RunSummary("first", "digits", "mlp", rounds=20, accuracy=0.91, ratio=40.0).ratio
    40.0
    """

    name: str  # of its folder
    workload: str  # its name
    model: str  # its name
    rounds: int  # number of finished rounds
    accuracy: float | None  # of the last one, in [0, 1]; None before the first evaluation
    ratio: float | None  # float32 bytes of what was sent over the frames' bytes, both ways together

    @classmethod
    def of(cls, run: Run) -> "RunSummary":
        """Return the line on a run.

        Parameters
        ----------
        run : Run
            The run.

        Returns
        -------
        RunSummary
            Its name and settings, and what it reached so far.
        """
        return cls(
            run.folder.name,
            run.settings.simulation.workload,
            run.settings.simulation.model,
            len(run.rounds),
            run.result.get("final", {}).get("accuracy"),
            run.result.get("totals", {}).get("ratio"),
        )


def list_runs(folder: Path) -> list[Run]:
    """Return the runs in a folder.

    Parameters
    ----------
    folder : Path
        The folder that holds the runs' folders.

    Returns
    -------
    list of Run
        The runs, by name; those whose result.json cannot be read are left out, with a warning.

    Examples
    --------
    >>> list_runs(Path("missing"))
    []
    """
    found = []
    for path in sorted(folder.glob(f"*/{RESULT}")):
        try:
            found.append(_read_run(path))
        except SettingError as error:
            _log.warning("%s is left out, its settings are those of another version: %s", path, error)
        except DataError as error:
            _log.warning("%s is left out: %s", path.parent, error)
    return found


def _read_run(path: Path) -> Run:
    try:
        run = Run(path.parent, read_json(path))
        RunSummary.of(run)  # raises if anything is missing
        return run
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
