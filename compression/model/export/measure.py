"""Measurement of an exported file in a separate process, and comparison with torch."""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedpress.common.errors import DataError, SettingError
from fedpress.compression.model.export.formats import line_of, quiet

_PROBE = Path(__file__).with_name("probe.py")


@dataclass(frozen=True)
class ExportMeasurement:
    """One file, compared with torch's float32 model."""

    nbytes: int
    accuracy: float
    agreement: float  # share of predictions that equal torch's
    difference: float  # largest of a score
    seconds: float | None  # of processor time, for one input on one thread; None, as both below, if not measured
    peak: int | None  # of resident bytes, with one input at a time
    before: int | None  # resident bytes after the import of the runtime


def measure(data: bytes, runtime: str, x: Tensor, y: Tensor, scores: Tensor) -> ExportMeasurement:
    """Return the measurement of a file.

    Parameters
    ----------
    data : bytes
        The file, for `runtime`.
    x, y : Tensor
        Inputs and targets.
    scores : Tensor
        Torch's scores of the inputs.

    Raises
    ------
    DataError
        If the file does not run.
    """
    with tempfile.TemporaryDirectory() as folder:
        given, inputs, output = (Path(folder) / name for name in ("file", "x.npy", "scores.npy"))
        path = given.with_suffix(".pt2" if runtime == "torch" else "")
        path.write_bytes(data)
        np.save(inputs, x.numpy())
        call = [sys.executable, "-I", "-W", "ignore", *map(str, (_PROBE, runtime, path, inputs, output))]
        run = subprocess.run(call, capture_output=True, text=True, check=False)
        if run.returncode:
            lines = run.stderr.strip().splitlines() or ["no message"]
            raise DataError(f"the exported file must run, got exit code {run.returncode}: {lines[-1][:300]}")
        report = json.loads(run.stdout.splitlines()[-1])
        theirs = torch.from_numpy(_load(output))
    compared = compare(theirs, y, scores, len(data))
    return replace(compared, seconds=report["seconds"], peak=report["peak"], before=report["before"])


def compare(theirs: Tensor, y: Tensor, scores: Tensor, nbytes: int) -> ExportMeasurement:
    """Return the comparison of a file's scores, `theirs`, with torch's; raise DataError if their shapes differ."""
    if theirs.shape != scores.shape:
        raise DataError(f"scores must be of shape {tuple(scores.shape)}, the exported file gives {tuple(theirs.shape)}")
    answers = theirs.argmax(-1)
    difference = float((theirs - scores).abs().max())
    right, same = _share(answers == y), _share(answers == scores.argmax(-1))
    return ExportMeasurement(nbytes, right, same, difference, None, None, None)


def program_of(model: nn.Module, x: Tensor) -> bytes:
    """Return `model` as a file of torch.export, to be measured like the others.

    Raises
    ------
    SettingError
        If it cannot be exported, such as a model with control flow that depends on values.
    """
    model.eval()
    with quiet(), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt2"
        count = torch.export.Dim("batch")
        try:
            torch.export.save(torch.export.export(model, (x[:2],), dynamic_shapes=({0: count},)), path)
        except Exception as error:
            raise SettingError(f"the model must be exportable by torch: {line_of(error)}") from error
        return path.read_bytes()


def _share(holds: Tensor) -> float:
    return float(holds.float().mean())


def _load(path: Path) -> NDArray[np.float32]:
    array: NDArray[np.float32] = np.load(path, allow_pickle=False)
    return array
