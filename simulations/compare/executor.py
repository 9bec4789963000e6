"""Runs cells, several at once, each in its own process; keeps what is done, and resumes from there."""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from fedpress.common.errors import FedpressError
from fedpress.common.files import make_folder
from fedpress.server.run.recorder import CHECKPOINT, RESULT
from fedpress.simulations.compare.grid import Cell

T = TypeVar("T")
R = TypeVar("R")
CELLS, SETTINGS, FINISHED, AFTER = "cells", "cell.toml", "finished", "after"


@dataclass(frozen=True)
class CellResult:
    """A cell that was run, or could not be."""

    cell: Cell
    folder: Path
    result: dict[str, Any] | None  # what its result.json holds; None if it failed
    reason: str = ""  # why it failed
    cached: bool = False  # run before
    after: Path | None = None  # the folder of the model that its candidate's commands made; None without commands


@dataclass(frozen=True)
class ComparisonProgress:
    """How far a comparison is."""

    done: int
    cells: int
    failed: int
    left: float  # seconds, as far as one can tell
    last: CellResult


def run_cells(
    cells: Sequence[Cell], folder: Path, *, jobs: int = 0, note: Callable[[ComparisonProgress], None] = lambda _: None
) -> list[CellResult]:
    """Run all cells that `folder` does not hold yet, `jobs` at once (as many as cores if 0); return them all, in order.

    A run that was stopped goes on where it was. One that fails is reported with its reason, others go on, and the next
    comparison tries it again. At Ctrl-C the runs are stopped and KeyboardInterrupt goes on.
    """
    jobs = jobs or len(os.sched_getaffinity(0))
    make_folder(folder)
    with _alone(folder) as held:
        return _run_cells(cells, folder, jobs, note, held)


@contextmanager
def _alone(folder: Path) -> Iterator[int]:
    """Hold a lock on `folder`, and hand it out: a run keeps it too, and so outlives a comparison that is killed.

    Raises FedpressError if another has it: two runs in one folder would spoil each other's.
    """
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise FedpressError(
            f"{folder} is in use by another comparison, or by a run of one that was killed: wait, or name another"
        ) from error
    try:
        yield lock
    finally:
        os.close(lock)


def _run_cells(
    cells: Sequence[Cell], folder: Path, jobs: int, note: Callable[[ComparisonProgress], None], held: int
) -> list[CellResult]:
    runs = {cell.key: cell for cell in cells}  # two names may stand for one run
    found: dict[str, CellResult] = {}
    for key, cell in runs.items():
        at = folder / CELLS / key
        if result := _finished(at):
            found[key] = CellResult(cell, at, result, cached=True)
    waiting = [key for key in runs if key not in found]
    began, ran, lock = time.monotonic(), 0, threading.Lock()
    # Rounds of other workloads take other times: what is left is judged by the share of updates that are done.
    updates = {key: _updates(runs[key]) for key in waiting}

    with _Processes(jobs, held) as processes:

        def work(key: str) -> None:
            nonlocal ran
            done = _run(runs[key], folder / CELLS / key, processes)
            with lock:
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
    """Subprocesses, `jobs` at once, that end with the comparison and keep its lock, `held`, while they run."""

    def __init__(self, jobs: int, held: int) -> None:
        self._pool = ThreadPoolExecutor(jobs)
        self._running: set[subprocess.Popen[str]] = set()
        self._held = held

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
        """Run a command and return why it failed, its last line; empty if it did not."""
        process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},  # one core a run: two threads would only wait for each other
            start_new_session=True,  # Ctrl-C is for the comparison, which terminates its runs
            pass_fds=(self._held,),
        )
        self._running.add(process)
        try:
            _, errors = process.communicate()
        finally:
            self._running.discard(process)
        if not process.returncode:
            return ""
        last = (errors.strip().splitlines() or [f"ended with {process.returncode}"])[-1]
        return last.removeprefix("fedpress: ")


def _updates(cell: Cell) -> int:
    return 1 if cell.is_app else cell.settings.server.rounds * cell.settings.server.per_round


def _finished(folder: Path) -> dict[str, Any] | None:
    if not (folder / FINISHED).exists():
        return None
    result: dict[str, Any] = json.loads((folder / RESULT).read_bytes())
    return result


def _run(cell: Cell, folder: Path, processes: _Processes) -> CellResult:
    if reason := processes.call(_command(cell, folder)):
        return CellResult(cell, folder, None, reason)
    # The checkpoint is as large as the model, and a finished run is not resumed.
    shutil.rmtree(folder / CHECKPOINT, ignore_errors=True)
    (folder / FINISHED).touch()
    return CellResult(cell, folder, _finished(folder))


def _make(done: CellResult, processes: _Processes) -> CellResult:
    """Run the commands of a finished cell's candidate, each on the folder that the one before it left."""
    if done.result is None or not done.cell.candidate.after:
        return done
    source = done.folder
    for words in done.cell.candidate.after:
        made = source / AFTER / hashlib.sha256(json.dumps(words).encode()).hexdigest()[:16]
        if not (made / FINISHED).exists():
            name, *options = words
            call = [sys.executable, "-m", "fedpress", name, str(source), *options, "--out", str(made), "--force"]
            if reason := processes.call([*call, "--json"]):
                return replace(done, result=None, reason=f"{name}: {reason}")
            (made / FINISHED).touch()
        source = made
    return replace(done, after=source)


def _command(cell: Cell, folder: Path) -> list[str]:
    """Return the call that runs `cell` in `folder`, its settings written there."""
    settings = folder / SETTINGS
    if cell.is_app:  # somebody else's, which knows no checkpoints
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        settings.write_text(json.dumps(dict(cell.config)))
        return [sys.executable, "-m", "fedpress.simulations.compare.flower_app", str(settings), str(folder)]
    folder.mkdir(parents=True, exist_ok=True)
    kept = cell.settings.change("simulation", workers=1, engine="inprocess").change("run", out="", resume=False)
    lines = [f"{json.dumps(key)} = {json.dumps(value)}\n" for key, value in kept.to_config().items()]
    settings.write_text("".join(lines))  # strings, numbers and booleans are written alike in JSON and TOML
    call = [sys.executable, "-m", "fedpress", "simulate", "--config", str(settings), "--json"]
    return [*call, "--resume", "--out", str(folder)]
