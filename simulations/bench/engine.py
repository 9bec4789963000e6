"""`bench engine`: the same federation as a bare torch loop, on fedpress's engine, and on Flower's Ray runtime."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

from fedpress.common.errors import FedpressError
from fedpress.simulations.bench.engine_contenders import ECHO_FLOATS, HERE
from fedpress.simulations.bench.memory import taken
from fedpress.simulations.settings import resolve

_WATCH = 0.05  # seconds between two samples of a contender's memory


@dataclass(frozen=True)
class EngineMeasurement:
    """The measurements of one contender."""

    name: str
    round_seconds: float  # median over all rounds but the first
    startup_seconds: float  # from the process's start to the first round's
    peak_bytes: int  # of all its processes together, as proportional set size: shared pages count once


def bench_engine(*, rounds: int, repeats: int, ray: bool, model: str, note: Callable[[str], None]) -> dict[str, Any]:
    """Measure every contender, `repeats` times in turn; return the medians and the ratios.

    With real training the baseline is as many bare loops as there are workers; with clients that return the model
    unchanged it is Flower's Ray runtime. `note` is called with lines of progress.
    """
    shared: dict[str, Any] = {"clients": 100, "per-round": 10, "rounds": rounds, "seed": 0}
    fashion = {"workload": "fashion", "model": model, "partition": "iid", "up": "none", "down": "none"}
    train, echo = (resolve(given).to_config() for given in ({**fashion, **shared}, shared))
    kinds = {
        "train": (train, ["bare-1", "bare-2", "inprocess-1", "inprocess-2", *(["ray-2"] if ray else [])]),
        "echo": (echo, ["inprocess-1", "inprocess-2", *(["ray-2"] if ray else [])]),
    }
    result: dict[str, Any] = {"rounds": rounds, "repeats": repeats, "model": model, "echo_floats": ECHO_FLOATS}
    for kind, (config, names) in kinds.items():
        runs: dict[str, list[EngineMeasurement]] = {name: [] for name in names}
        for repeat in range(repeats):
            # In turn, so that changes in the machine's speed affect all contenders.
            for name in names:
                note(f"{kind}: {name}, {repeat + 1} of {repeats}")
                runs[name].append(_measure(name, kind, config, watch=False))
        # Sampling a process's memory slows it down, so it is done in a separate run.
        note(f"{kind}: memory")
        peaks = {name: _measure(name, kind, config, watch=True).peak_bytes for name in names}
        rows = {name: _median(name, found, peaks[name]) for name, found in runs.items()}
        result[kind] = {"contenders": [asdict(row) for row in rows.values()], "ratios": dict(_ratios(kind, rows))}
    return result


def _measure(name: str, kind: str, config: dict[str, Any], *, watch: bool) -> EngineMeasurement:
    with tempfile.TemporaryDirectory(prefix="fedpress-bench-") as folder:
        times = Path(folder) / "times.json"
        command = [sys.executable, "-m", HERE, name, kind, json.dumps(config), str(times)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        began = time.time()
        with (Path(folder) / "log").open("wb") as log:
            process = psutil.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
            peak = 0
            while watch and process.poll() is None:
                peak = max(peak, taken(process).pss)
                time.sleep(_WATCH)
            process.wait()
        if process.returncode or not times.exists():
            last = (Path(folder) / "log").read_text(errors="replace").strip().splitlines()[-1:]
            raise FedpressError(f"the contender {name} ({kind}) failed: {' '.join(last)}")
        ends = json.loads(times.read_text())
    spans = [end - begin for begin, end in pairwise(ends)]
    return EngineMeasurement(name, statistics.median(spans[1:] or spans), ends[0] - began, peak)


def _median(name: str, runs: list[EngineMeasurement], peak: int) -> EngineMeasurement:
    return EngineMeasurement(
        name,
        statistics.median(run.round_seconds for run in runs),
        statistics.median(run.startup_seconds for run in runs),
        peak,
    )


def _ratios(kind: str, rows: dict[str, EngineMeasurement]) -> Iterator[tuple[str, float]]:
    if kind == "train":
        for workers in (1, 2):
            yield (
                f"inprocess-{workers} / bare-{workers}, a round",
                _over(rows, f"inprocess-{workers}", f"bare-{workers}"),
            )
    if "ray-2" in rows:
        yield "inprocess-2 / ray-2, a round", _over(rows, "inprocess-2", "ray-2")
        yield "inprocess-2 / ray-2, start-up", rows["inprocess-2"].startup_seconds / rows["ray-2"].startup_seconds


def _over(rows: dict[str, EngineMeasurement], one: str, other: str) -> float:
    return rows[one].round_seconds / rows[other].round_seconds
