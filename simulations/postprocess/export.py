"""`fedpress export`: a run's model as files for devices, checked against torch on real data and measured."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from fedpress.common.errors import DataError, SettingError, unknown
from fedpress.common.files import check_folder, output_folder, replace
from fedpress.common.rng import derive
from fedpress.common.settings import require
from fedpress.common.version import versions
from fedpress.compression.model.evaluation import scores_of
from fedpress.compression.model.export import FORMATS, ExportMeasurement, export, measure
from fedpress.compression.model.export.measure import compare, program_of
from fedpress.compression.model.quantization import SCALE, unpack
from fedpress.simulations.postprocess import Progress
from fedpress.simulations.postprocess.run_folder import RunFolder, read_folder
from fedpress.simulations.run_files import EXPORT, EXPORTED, own_files
from fedpress.simulations.workloads import find

SCHEMA = 1
_CALIBRATION = 200  # training inputs from which int8 takes the ranges of activations


def export_run(
    source: Path,
    formats: Sequence[str],
    *,
    int8: bool = False,
    out: Path | None = None,
    examples: int = 2000,
    force: bool = False,
    progress: Progress = lambda _: None,
) -> dict[str, Any]:
    """Export the model of a run's folder, and compare each file with torch.

    Files are written atomically, and only if their outputs agree with torch.

    Parameters
    ----------
    source : Path
        The folder.
    formats : sequence of str
        Keys of `FORMATS`.
    int8 : bool
        Whether to write a second file of each format, with weights of 8 bits; `.int8` is part of its name.
    out : Path, optional
        The file in float32, for a single format; in the folder if None.
    examples : int
        Number of test examples, at least 1, on which files are run.
    force : bool
        Whether to overwrite files.
    progress : callable
        Called with a line after each step.

    Returns
    -------
    dict of str to Any
        The report: JSON values, with a row for each file in `rows`.

    Raises
    ------
    SettingError
        If `source` holds no run, a format is unknown or cannot hold the model, `out` is given for several formats or
        names one of the run's files, or a file exists and `force` is False.
    DataError
        If a file cannot be read, or an exported model does not run or differs from torch.
    """
    for name in formats:
        if name not in FORMATS:
            raise SettingError(unknown("format", name, FORMATS))
    if not formats:
        raise SettingError(f"--format must be one of {', '.join(FORMATS)}, got none")
    if out and len(formats) > 1:
        raise SettingError(f"--out must be given with one format, got {len(formats)}")
    require(examples >= 1, "examples", "at least 1", examples)
    kinds = [(name, small) for name in dict.fromkeys(formats) for small in ((False, True) if int8 else (False,))]

    def places() -> dict[tuple[str, bool], Path]:
        return {(name, small): _place(source, out, name, int8=small, force=force) for name, small in kinds}

    (parent,) = {path.parent for path in places().values()}
    job = _ExportJob(read_folder(source), examples)
    with output_folder(parent, "command"):
        return {"schema": SCHEMA, "source": str(source), **job.export(places(), progress), "versions": versions()}


class _ExportJob:
    """A folder's model, and the examples on which exported files are run."""

    def __init__(self, folder: RunFolder, examples: int) -> None:
        self._folder = folder
        self._data = folder.task.data
        rng = derive(folder.settings.run.seed, "export")
        some = np.sort(rng.permutation(len(self._data.test))[:examples])
        test = self._data.test.pick(some)
        self.x, self._y = test.x, test.y
        # Training inputs, never test inputs.
        self.seen = self._data.train.pick(np.sort(rng.permutation(len(self._data.train))[:_CALIBRATION])).x
        self._scores = scores_of(folder.model, self.x)

    def export(self, places: Mapping[tuple[str, bool], Path], progress: Progress) -> dict[str, Any]:
        """Write a file of each format and size to its place; return the number of examples, and the table's rows."""
        source, workload = self._folder.path, self._folder.settings.simulation.workload
        progress(f"{source}: {workload}, {len(self.x):,} test examples, accuracy {self.accuracy:.4f} in torch")
        rows = []
        if found := self.in_torch(self._folder.model):
            rows.append({"format": "torch", "int8": False, **asdict(found)})
        else:
            progress("torch cannot export the model as a program: its time and memory are not measured")
        files: dict[Path, bytes] = {}
        for (name, small), path in places.items():
            data, row = self.make(name, small)
            progress(f"{name}{' int8' if small else ''}: {row['nbytes']:,} bytes, {row['agreement']:.2%} as torch")
            files[path] = data
            if name == "safetensors":
                files[_description_path(path)] = self.configuration(small)
            rows.append({**row, "file": str(path)})
        for path, data in files.items():
            replace(path, data)
        return {"examples": len(self.x), "rows": rows}

    @property
    def accuracy(self) -> float:
        """Accuracy of the model in torch, on the examples."""
        return float((self._scores.argmax(-1) == self._y).float().mean())

    def make(self, format: str, int8: bool) -> tuple[bytes, dict[str, Any]]:
        """Return the file, and its row of the table."""
        model = self._folder.model
        data = export(model, self.seen, format, int8=int8)
        if format == "safetensors":
            read = self._read(data)
            found = self.in_torch(read, len(data)) or compare(scores_of(read, self.x), self._y, self._scores, len(data))
        else:
            found = measure(data, format, self.x, self._y, self._scores)
        if not found.difference <= (math.inf if int8 else _tolerance(self._scores)):  # also if it is NaN
            raise DataError(f"{format} differs from torch: scores differ by up to {found.difference:.3g}")
        return data, {"format": format, "int8": int8, **asdict(found)}

    def in_torch(self, model: nn.Module, nbytes: int | None = None) -> ExportMeasurement | None:
        """Return the measurement of `model` as a program of torch, None if it has none; `nbytes` of its file."""
        try:
            program = program_of(model, self.seen)
        except SettingError:
            return None
        found = measure(program, "torch", self.x, self._y, self._scores)
        return found if nbytes is None else ExportMeasurement(**{**asdict(found), "nbytes": nbytes})

    def configuration(self, int8: bool) -> bytes:
        """Return the description of the weights' file, as JSON."""
        simulation, model = self._folder.settings.simulation, self._folder.model
        description = {
            "schema": SCHEMA,
            "workload": simulation.workload,
            "model": simulation.model or next(iter(find(simulation.workload).models)),
            "plan": self._folder.plan.json() if self._folder.plan.steps else None,
            "input": {"shape": list(self.x.shape[1:]), "dtype": str(self.x.dtype).removeprefix("torch.")},
            "classes": list(self._data.names) if self._y.dim() == 1 else None,
            "int8": {"scales": f"NAME{SCALE}, one for each row of NAME"} if int8 else None,
            "tensors": {
                name: {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}
                for name, tensor in model.state_dict().items()
            },
            "versions": versions(),
        }
        return json.dumps(description, indent=1).encode()

    def _read(self, data: bytes) -> nn.Module:
        """Return the model with the weights of a file."""
        from safetensors.torch import load

        model = self._folder.plan.build(self._folder.task.model())
        model.load_state_dict(unpack(load(data)))
        return model


def _place(source: Path, out: Path | None, format: str, *, int8: bool, force: bool) -> Path:
    """Return the file to write; raise SettingError if it is invalid, or would replace another file."""
    path = out or source / EXPORT / f"{EXPORTED}{FORMATS[format].suffix}"
    if int8:
        path = path.with_name(f"{path.stem}.int8{path.suffix}")
    paths = [path, _description_path(path)] if format == "safetensors" else [path]
    own = {file.resolve() for file in own_files(source)}
    check_folder(path.parent)
    for each in paths:
        if each.resolve() in own:
            raise SettingError(f"{each} is a file of the run: name another file than {path}")
        if each.is_dir():
            raise SettingError(f"{each} is a folder: --out names a file")
        if each.exists() and not force:
            raise SettingError(f"{each} exists: name another file, or overwrite it with --force")
    if path in paths[1:]:
        raise SettingError(f"{path} is the name of the description of the weights: name another file for the weights")
    return path


def _description_path(path: Path) -> Path:
    """Return the path of the file that describes the weights in `path`."""
    return path.with_suffix(".json")


def _tolerance(scores: Tensor) -> float:
    """Return the largest difference of scores between float32 runtimes, which add in different orders."""
    return 1e-3 * max(1.0, float(scores.abs().max()))


def slower(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return a line for each format that int8 makes slower; safetensors are not run in int8."""
    lines = []
    for row in rows:
        plain = next((other for other in rows if other["format"] == row["format"] and not other["int8"]), None)
        if row["int8"] and plain and row["format"] != "safetensors" and row["seconds"] > plain["seconds"]:
            times = row["seconds"] / plain["seconds"]
            lines.append(f"{row['format']}: int8 is {times:.2f} times slower than float32 here")
    return lines
