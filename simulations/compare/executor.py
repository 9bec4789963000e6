"""Runs cells, several at once, each in its own process; caches finished runs, and resumes interrupted ones."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from fedpress.common.checked_files import digests, read_json, write_json
from fedpress.common.errors import DataError
from fedpress.common.files import replace as replace_file
from fedpress.common.files import set_aside
from fedpress.common.logs import ALERT
from fedpress.common.settings import toml
from fedpress.server.run.configuration import has_run
from fedpress.server.run.recorder import CHECKPOINT, MODEL, RESULT, TRAFFIC
from fedpress.simulations.compare.grid import Cell

T = TypeVar("T")
R = TypeVar("R")
CELLS, SETTINGS, FINISHED, AFTER = "cells", "cell.toml", "finished", "after"


@dataclass(frozen=True)
class CellResult:
    """The result of a cell, or the reason why it failed."""

    cell: Cell
    folder: Path
    result: dict[str, Any] | None  # the content of its result.json; None if it failed
    reason: str = ""  # why it failed
    after: Path | None = None  # the folder of the model that its candidate's commands made; None without commands


@dataclass(frozen=True)
class ComparisonProgress:
    """The progress of a comparison."""

    done: int
    cells: int
    failed: int
    left: float  # estimated seconds
    last: CellResult


def run_cells(
    cells: Sequence[Cell],
    folder: Path,
    *,
    lock: int,
    jobs: int = 0,
    note: Callable[[ComparisonProgress], None] = lambda _: None,
) -> list[CellResult]:
    """Run all cells that `folder` does not hold yet, `jobs` at once (as many as cores if 0); return them all, in order.

    An interrupted run is resumed. One that fails is reported with its reason, does not stop the others, and is retried
    by the next comparison. At Ctrl-C the runs are stopped and KeyboardInterrupt is raised. `lock` is the descriptor of
    the folder's lock, which runs inherit in case the comparison is killed.
    """
    jobs = jobs or len(os.sched_getaffinity(0))
    runs = {cell.key: cell for cell in cells}  # candidates with different names may be the same run
    found: dict[str, CellResult] = {}
    for key, cell in runs.items():
        path = folder / CELLS / key
        if result := _finished(path):
            found[key] = CellResult(cell, path, result)
    waiting = [key for key in runs if key not in found]
    began, ran, noting = time.monotonic(), 0, threading.Lock()
    # Workloads have rounds of different lengths: the time left is estimated from the share of updates that are done.
    updates = {key: _updates(runs[key]) for key in waiting}

    with _Processes(jobs, lock) as processes:

        def work(key: str) -> None:
            nonlocal ran
            done = _run(runs[key], folder / CELLS / key, processes)
            with noting:
                found[key] = done
                ran += updates[key]
                left = (time.monotonic() - began) * (sum(updates.values()) / ran - 1)
                failed = sum(other.result is None for other in found.values())
                note(ComparisonProgress(len(found), len(runs), failed, left, done))

        processes.each(work, waiting)
        # Candidates may share a run and the first of their commands: a run's commands are called one after another.
        by_run = [[cell for cell in cells if cell.key == key] for key in runs]
        made = processes.each(
            lambda group: [_make(replace(found[cell.key], cell=cell), processes) for cell in group], by_run
        )
        finished = {(done.cell.key, done.cell.candidate.name): done for group in made for done in group}
        return [finished[cell.key, cell.candidate.name] for cell in cells]


class _Processes:
    """Subprocesses, `jobs` at once, that end with the comparison and inherit its lock."""

    def __init__(self, jobs: int, lock: int) -> None:
        self._pool = ThreadPoolExecutor(jobs)
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = lock

    def __enter__(self) -> "_Processes":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            for process in list(self._running):
                process.terminate()
        self._pool.shutdown()

    def each(self, function: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """Call `function` with each item, in threads, and return its results in order."""
        return [future.result() for future in [self._pool.submit(function, item) for item in items]]

    def call(self, command: Sequence[str]) -> str:
        """Run a command; return the last line of its errors if it failed, else an empty string."""
        process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="backslashreplace",
            env={**os.environ, "OMP_NUM_THREADS": "1"},  # one core per run: more threads would contend for it
            start_new_session=True,  # Ctrl-C is for the comparison, which terminates its runs
            pass_fds=(self._lock,),
        )
        self._running.add(process)
        last = ""
        try:
            with process:
                for line in process.stderr or ():
                    last = line.strip() or last
                    if line.startswith(ALERT):  # such as a full disk: it waits for a person
                        sys.stderr.write(line)
        finally:
            self._running.discard(process)
        if not process.returncode:
            return ""
        return (last or f"ended with {process.returncode}").removeprefix("fedpress: ")


def _updates(cell: Cell) -> int:
    return 1 if cell.is_app else cell.settings.server.rounds * cell.settings.server.per_round


def _finished(folder: Path) -> dict[str, Any] | None:
    """Return the result of a finished run; None if it has not finished, or its files are not what was written."""
    if not (folder / FINISHED).exists():
        return None
    try:
        written = read_json(folder / FINISHED)["files"] if (folder / FINISHED).stat().st_size else {}
        result = read_json(folder / RESULT)
        for name, digest in digests(folder, *written).items():
            if digest != written[name]:
                raise DataError(f"{folder / name} is not what was written")
    except (DataError, KeyError, TypeError) as error:
        set_aside(folder / FINISHED, f"{error}; it is run again")
        return None
    return result


def _finish(folder: Path) -> None:
    """Note that a run has finished, with the digests of its files."""
    names = [name for name in (RESULT, TRAFFIC, MODEL) if (folder / name).exists()]
    write_json(folder / FINISHED, {"files": digests(folder, *names)}, durable=True)


def _run(cell: Cell, folder: Path, processes: _Processes) -> CellResult:
    if reason := processes.call(_command(cell, folder)):
        return CellResult(cell, folder, None, reason)
    # The checkpoint is as large as the model, and a finished run is not resumed.
    shutil.rmtree(folder / CHECKPOINT, ignore_errors=True)
    _finish(folder)
    return CellResult(cell, folder, _finished(folder))


def _make(done: CellResult, processes: _Processes) -> CellResult:
    """Run the commands of a finished cell's candidate, each on the folder that the previous one made."""
    if done.result is None or not done.cell.candidate.after:
        return done
    source = done.folder
    for words in done.cell.candidate.after:
        made = source / AFTER / hashlib.sha256(json.dumps(words).encode()).hexdigest()[:16]
        if _finished(made) is None:
            name, *options = words
            call = [sys.executable, "-m", "fedpress", name, str(source), *options, "--out", str(made), "--force"]
            if reason := processes.call([*call, "--json"]):
                return replace(done, result=None, reason=f"{name}: {reason}")
            _finish(made)
        source = made
    return replace(done, after=source)


def _command(cell: Cell, folder: Path) -> list[str]:
    """Write the settings of `cell` to `folder`, and return the command that runs it there."""
    settings = folder / SETTINGS
    if cell.is_app:  # a Flower app has no checkpoints to resume from
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        replace_file(settings, json.dumps(dict(cell.config)).encode())
        return [sys.executable, "-m", "fedpress.simulations.compare.flower_app", str(settings), str(folder)]
    folder.mkdir(parents=True, exist_ok=True)
    kept = cell.settings.change("simulation", workers=1, engine="inprocess").change("run", out="", resume=False)
    lines = [f"{toml(key)} = {toml(value)}\n" for key, value in kept.to_config().items()]
    replace_file(settings, "".join(lines).encode())
    call = [sys.executable, "-m", "fedpress", "simulate", "--config", str(settings), "--json", "--out", str(folder)]
    return [*call, "--resume" if has_run(folder) else "--force"]
