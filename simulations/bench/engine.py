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
    peak_bytes: int | None  # of all its processes together, as proportional set size; None if not measured


def bench_engine(
    *, rounds: int, repeats: int, ray: bool, model: str, full: bool, note: Callable[[str], None]
) -> dict[str, Any]:
    """Measure the contenders with two workers, `repeats` times in turn; return the medians and the ratios.

    With real training the baseline is as many bare loops as there are workers; with clients that return the model
    unchanged it is Flower's Ray runtime. If `full`, contenders with one worker and memory are measured too, and clients
    train for two epochs. `note` is called with lines of progress.
    """
    shared: dict[str, Any] = {"clients": 100, "per-round": 10, "rounds": rounds, "seed": 0}
    fashion = {"workload": "fashion", "model": model, "partition": "iid", "up": "none", "down": "none"}
    epochs = {"local-epochs": 2 if full else 1}
    train, echo = (resolve(given).to_config() for given in ({**fashion, **shared, **epochs}, shared))
    ray_names = ["ray-2"] if ray else []
    kinds = {
        "train": (train, [*(["bare-1"] if full else []), "bare-2", *_inprocess(full), *ray_names]),
        "echo": (echo, [*_inprocess(full), *ray_names]),
    }
    result: dict[str, Any] = {"rounds": rounds, "repeats": repeats, "model": model, "echo_floats": ECHO_FLOATS}
    for kind, (config, names) in kinds.items():
        runs: dict[str, list[EngineMeasurement]] = {name: [] for name in names}
        for repeat in range(repeats):
            # In turn, so that changes in the machine's speed affect all contenders.
            for name in names:
                note(f"{kind}: {name}, {repeat + 1} of {repeats}")
                runs[name].append(_measure(name, kind, config, watch=False))
        peaks: dict[str, int | None] = {}
        if full:  # sampling a process's memory slows it down, so it is done in a separate run
            note(f"{kind}: memory")
            peaks = {name: _measure(name, kind, config, watch=True).peak_bytes for name in names}
        rows = {name: _median(name, found, peaks.get(name)) for name, found in runs.items()}
        result[kind] = {"contenders": [asdict(row) for row in rows.values()], "ratios": dict(_ratios(kind, rows))}
    return result


def _inprocess(full: bool) -> list[str]:
    return [*(["inprocess-1"] if full else []), "inprocess-2"]


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


def _median(name: str, runs: list[EngineMeasurement], peak: int | None) -> EngineMeasurement:
    return EngineMeasurement(
        name,
        statistics.median(run.round_seconds for run in runs),
        statistics.median(run.startup_seconds for run in runs),
        peak,
    )


def _ratios(kind: str, rows: dict[str, EngineMeasurement]) -> Iterator[tuple[str, float]]:
    if kind == "train":
        for one, other in (("inprocess-1", "bare-1"), ("inprocess-2", "bare-2")):
            if one in rows:
                yield f"{one} / {other}, a round", _over(rows, one, other)
    if "ray-2" in rows:
        yield "inprocess-2 / ray-2, a round", _over(rows, "inprocess-2", "ray-2")
        yield "inprocess-2 / ray-2, start-up", rows["inprocess-2"].startup_seconds / rows["ray-2"].startup_seconds


def _over(rows: dict[str, EngineMeasurement], one: str, other: str) -> float:
    return rows[one].round_seconds / rows[other].round_seconds
