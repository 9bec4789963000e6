"""What a file gives and takes, measured in a process of its own, and how near it comes to torch."""

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
    """One file beside torch's float32 model."""

    nbytes: int
    accuracy: float
    agreement: float  # share of predictions that are torch's
    difference: float  # largest of a score
    seconds: float | None  # of the processor, for one input on one thread; None, as both below, if it was not measured
    peak: int | None  # bytes resident at most, while one input at a time was run
    before: int | None  # bytes of them that the runtime had when it was imported


def measure(data: bytes, runtime: str, x: Tensor, y: Tensor, scores: Tensor) -> ExportMeasurement:
    """Return what `data`, a file for `runtime`, comes to on inputs `x` with targets `y`; torch says `scores`.

    Raises
    ------
    DataError
        If the file does not run.
    """
    with tempfile.TemporaryDirectory() as folder:
        given, asked, said = (Path(folder) / name for name in ("file", "x.npy", "scores.npy"))
        path = given.with_suffix(".pt2" if runtime == "torch" else "")
        path.write_bytes(data)
        np.save(asked, x.numpy())
        call = [sys.executable, "-I", "-W", "ignore", *map(str, (_PROBE, runtime, path, asked, said))]
        run = subprocess.run(call, capture_output=True, text=True, check=False)
        if run.returncode:
            lines = run.stderr.strip().splitlines() or ["no word"]
            raise DataError(f"the exported file does not run, exit code {run.returncode}: {lines[-1][:300]}")
        told = json.loads(run.stdout.splitlines()[-1])
        theirs = torch.from_numpy(_load(said))
    compared = compare(theirs, y, scores, len(data))
    return replace(compared, seconds=told["seconds"], peak=told["peak"], before=told["before"])


def compare(theirs: Tensor, y: Tensor, scores: Tensor, nbytes: int) -> ExportMeasurement:
    """Return what scores `theirs`, of a file of `nbytes`, come to beside torch's; DataError if they are no such."""
    if theirs.shape != scores.shape:
        raise DataError(f"the exported file gives scores of shape {tuple(theirs.shape)}, torch {tuple(scores.shape)}")
    answers = theirs.argmax(-1)
    difference = float((theirs - scores).abs().max())
    right, same = _share(answers == y), _share(answers == scores.argmax(-1))
    return ExportMeasurement(nbytes, right, same, difference, None, None, None)


def program_of(model: nn.Module, x: Tensor) -> bytes:
    """Return `model` as a file of torch's own, to be measured beside the others.

    Raises
    ------
    SettingError
        If it is no graph: what it does hangs on values.
    """
    model.eval()
    with quiet(), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt2"
        count = torch.export.Dim("batch")
        try:
            torch.export.save(torch.export.export(model, (x[:2],), dynamic_shapes=({0: count},)), path)
        except Exception as error:
            raise SettingError(f"the model is no program of torch's: {line_of(error)}") from error
        return path.read_bytes()


def _share(holds: Tensor) -> float:
    return float(holds.float().mean())


def _load(path: Path) -> NDArray[np.float32]:
    array: NDArray[np.float32] = np.load(path, allow_pickle=False)
    return array
