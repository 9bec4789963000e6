"""The grid: every candidate on every workload with every seed; all are checked before the first run."""

import hashlib
import json
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from fedpress.client.training.loop import train
from fedpress.common.checked_files import read_json, write_json
from fedpress.common.errors import DataError, FedpressError, SettingError
from fedpress.common.files import locked, make_folder, set_aside
from fedpress.common.rng import derive
from fedpress.common.settings import Value, read
from fedpress.common.version import versions
from fedpress.compression import Layout, Update
from fedpress.server.strategy.factory import build
from fedpress.settings import RunSettings
from fedpress.settings.codecs import down_codec, up_codec
from fedpress.simulations.compare.app_settings import AppSettings
from fedpress.simulations.compare.candidates import Candidate
from fedpress.simulations.compare.flower_app import read_app, resolve_app
from fedpress.simulations.preflight import check_apps
from fedpress.simulations.settings import resolve, simulation_schema
from fedpress.simulations.workloads import task

PACES = "paces.json"
# Settings that all candidates share: with other data or another network their results would not be comparable.
# The model and the apps may differ, since candidates are compared by their accuracy on the same data.
_SHARED = ("run.", "simulation.", "network.", "server.per-round")
_NOT_SHARED = {"simulation.model", "simulation.apps"}


@dataclass(frozen=True)
class Cell:
    """One run of a comparison: a candidate on a workload with a seed."""

    workload: str
    candidate: Candidate
    seed: int
    given: Mapping[str, Value]  # settings that were given explicitly
    config: Mapping[str, Value]  # all settings, by their full keys; those of the app for a Flower app

    @property
    def is_app(self) -> bool:
        """Whether it is a run of a user's Flower app."""
        return "app" in self.config

    @property
    def app(self) -> AppSettings:
        """The settings of a run of a user's Flower app."""
        return read(AppSettings, self.config)

    @property
    def settings(self) -> RunSettings:
        """The settings of a run of fedpress's own apps."""
        return RunSettings.from_config(self.config)

    @cached_property
    def key(self) -> str:
        """The key of the run in the cache: a hash of all that affects its result."""
        declared = RunSettings.schema().declared
        without = {key for key, setting in declared.items() if not setting.option.changes_result}
        config = {key: value for key, value in self.config.items() if key not in without | {"simulation.engine"}}
        software = {name: version for name, version in versions().items() if name != "cores"}
        text = json.dumps([config, software], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __str__(self) -> str:
        return f"{self.workload}, {self.candidate.name}, seed {self.seed}"


def plan(
    candidates: Sequence[Candidate], workloads: Sequence[str], seeds: Iterable[int], settings: Mapping[str, Value]
) -> list[Cell]:
    """Return the cells, with candidates of one workload and seed in a row.

    Raises SettingError, which names the candidate, if its settings are invalid.
    """
    for candidate in candidates:
        flat = simulation_schema().flatten(candidate.settings)
        if shared := sorted(key for key in flat if key.startswith(_SHARED) and key not in _NOT_SHARED):
            raise SettingError(
                f"candidate {candidate.name!r}: {shared[0]} must be the same for all: give it with --set"
            )
    cells = []
    for workload in workloads:
        for seed in seeds:
            for candidate in candidates:
                try:
                    flatten = simulation_schema().flatten
                    own = {"workload": workload, "seed": seed, **candidate.config}
                    given = {**flatten(settings), **flatten(own)}
                    cells.append(Cell(workload, candidate, seed, given, resolve(given).to_config()))
                except SettingError as error:
                    raise SettingError(f"candidate {candidate.name!r}: {error}") from error
    return cells


def plan_app(
    candidates: Sequence[Candidate], path: Path, seeds: Iterable[int], settings: Mapping[str, Value]
) -> list[Cell]:
    """Return the cells of a user's Flower app; its name is that of the workload."""
    app = read_app(path)
    app.load()  # checks that it can be imported
    for candidate in candidates:
        if candidate.settings or candidate.after:
            raise SettingError(f"candidate {candidate.name!r}: with an app it must have codecs only")
        try:
            down_codec(candidate.down)
        except SettingError as error:
            raise SettingError(f"candidate {candidate.name!r}: {error}") from error
    return [
        Cell(app.path.name, candidate, seed, given, resolve_app(app, given))
        for seed in seeds
        for candidate in candidates
        for given in [{**settings, "seed": seed, "up": candidate.up, "down": candidate.down}]
    ]


def check(cells: Iterable[Cell]) -> None:
    """Check that the strategy, codecs and model of each candidate work together, before the first run.

    Raises SettingError, which names the candidate.
    """
    for cell in _distinct(cells):
        try:
            check_apps(cell.settings)
            work = task(cell.settings)
            strategy = build(cell.settings, work)
            initial = strategy.extensions.begin(work.initial())
            layout = Layout.of(initial)
            left_out = strategy.excluded(layout)
            names = {tensor.name for tensor in layout.part(left_out).tensors} if left_out else set()
            _measure_coding(cell, {name: array for name, array in initial.items() if name not in names})
        except FedpressError as error:
            raise SettingError(f"candidate {cell.candidate.name!r} on {cell.workload}: {error}") from error


def paced(cells: Sequence[Cell], folder: Path, network: Mapping[str, Value]) -> list[Cell]:
    """Return `cells` on a simulated network, with the pace of this machine, which determines the replies that are late.

    It is measured once and kept in `folder`, since another pace would make all cached runs invalid.
    """
    path = folder / PACES
    make_folder(folder)
    with locked(folder, "comparison"):
        known = _known_paces(path)
        _measure_paces(cells, known)
        write_json(path, known, durable=True)
    result = []
    for cell in cells:
        training, coding = known[f"{cell.workload}: {cell.candidate.name}"]
        pace = {"network.training-pace": training, "network.coding-pace": coding}
        result.append(replace(cell, config=resolve({**cell.given, **network, **pace}).to_config()))
    return result


def _known_paces(path: Path) -> dict[str, list[float]]:
    try:
        return {name: pace for name, pace in read_json(path).items() if ": " in name} if path.exists() else {}
    except DataError as error:
        set_aside(path, f"{error}; paces are measured again")
        return {}


def _measure_paces(cells: Sequence[Cell], known: dict[str, list[float]]) -> None:
    """Add the paces to `known` that it lacks."""
    for cell in _distinct(cells):
        name = f"{cell.workload}: {cell.candidate.name}"
        if name not in known:
            trainings = [pace[0] for key, pace in known.items() if key.startswith(f"{cell.workload}: ")]
            coding = _measure_coding(cell, task(cell.settings).initial())
            known[name] = [trainings[0] if trainings else _measure_training(cell), coding]


def _distinct(cells: Iterable[Cell]) -> list[Cell]:
    """Return one cell of each candidate on each workload."""
    return list({(cell.workload, cell.candidate.name): cell for cell in reversed(list(cells))}.values())[::-1]


def _measure_training(cell: Cell) -> float:
    """Return the seconds of training per example on this machine, median over three nodes."""
    work, seconds = task(cell.settings), []
    model = work.model()
    for node in range(min(3, cell.settings.clients)):
        examples, began = work.examples(node), time.perf_counter()
        train(
            model,
            examples,
            cell.settings.training,
            round=1,
            rounds=cell.settings.server.rounds,
            seed=0,
            partition=node,
            device=cell.settings.run.device,
        )
        seconds.append((time.perf_counter() - began) / len(examples))
    return statistics.median(seconds)


def _measure_coding(cell: Cell, initial: Update) -> float:
    """Return the seconds for decoding a model's delta and encoding an update, both random."""
    layout, rng = Layout.of(initial), derive(0, "trial")
    update = {t.name: _noise(t.shape, t.dtype, rng) if t.floating else initial[t.name] for t in layout.tensors}
    seconds = 0.0
    down = down_codec(cell.candidate.down, broadcast=cell.settings.server.broadcast)
    for codec, way in ((up_codec(cell.candidate.up), "up"), (down, "down")):
        began = time.perf_counter()
        frame, _ = codec.encode(update, codec.init(layout), rng)
        between = time.perf_counter()
        codec.decode(frame, layout)
        seconds += between - began if way == "up" else time.perf_counter() - between
    return seconds


def _noise(shape: tuple[int, ...], dtype: str, rng: np.random.Generator) -> np.ndarray:
    return np.asarray(rng.normal(0, 1e-3, shape)).astype(dtype)
