"""Runs cells, several at once, each in a process of its own; keeps what is done, and goes on from there."""

import fcntl
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
from typing import Any

from fedpress.common.errors import FedpressError
from fedpress.common.files import make_folder
from fedpress.server.run.recorder import CHECKPOINT, RESULT
from fedpress.simulations.compare.grid import Cell

CELLS, SETTINGS, FINISHED = "cells", "cell.toml", "finished"


@dataclass(frozen=True)
class Done:
    """A cell that was run, or could not be."""

    cell: Cell
    folder: Path
    result: dict[str, Any] | None  # what its result.json holds; None if it failed
    reason: str = ""  # why it failed
    cached: bool = False  # run before


@dataclass(frozen=True)
class Standing:
    """How far a comparison is."""

    done: int
    cells: int
    failed: int
    left: float  # seconds, as far as one can tell
    last: Done


def run_cells(
    cells: Sequence[Cell], folder: Path, *, jobs: int = 0, note: Callable[[Standing], None] = lambda _: None
) -> list[Done]:
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
    cells: Sequence[Cell], folder: Path, jobs: int, note: Callable[[Standing], None], held: int
) -> list[Done]:
    runs = {cell.key: cell for cell in cells}  # two names may stand for one run
    found: dict[str, Done] = {}
    for key, cell in runs.items():
        at = folder / CELLS / key
        if result := _finished(at):
            found[key] = Done(cell, at, result, cached=True)
    waiting = [key for key in runs if key not in found]
    began, ran = time.monotonic(), 0
    lock, running = threading.Lock(), set[subprocess.Popen[str]]()
    # Rounds of other workloads take other times: what is left is judged by the share of updates that are done.
    updates = {key: _updates(runs[key]) for key in waiting}

    def work(key: str) -> None:
        nonlocal ran
        done = _run(runs[key], folder / CELLS / key, running, held)
        with lock:
            found[key] = done
            ran += updates[key]
            left = (time.monotonic() - began) * (sum(updates.values()) / ran - 1)
            failed = sum(other.result is None for other in found.values())
            note(Standing(len(found), len(runs), failed, left, done))

    pool = ThreadPoolExecutor(jobs)
    try:
        for future in [pool.submit(work, key) for key in waiting]:
            future.result()
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in list(running):
            process.terminate()
        raise
    finally:
        pool.shutdown()
    return [replace(found[cell.key], cell=cell) for cell in cells]


def _updates(cell: Cell) -> int:
    return 1 if cell.is_app else cell.settings.server.rounds * cell.settings.server.per_round


def _finished(folder: Path) -> dict[str, Any] | None:
    if not (folder / FINISHED).exists():
        return None
    result: dict[str, Any] = json.loads((folder / RESULT).read_bytes())
    return result


def _run(cell: Cell, folder: Path, running: "set[subprocess.Popen[str]]", held: int) -> Done:
    process = subprocess.Popen(
        _command(cell, folder),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # one core a run: two threads on it would only wait for each other
        start_new_session=True,  # Ctrl-C is for us, and we say it on
        pass_fds=(held,),
    )
    running.add(process)
    try:
        _, errors = process.communicate()
    finally:
        running.discard(process)
    if process.returncode:
        last = (errors.strip().splitlines() or [f"ended with {process.returncode}"])[-1]
        return Done(cell, folder, None, last.removeprefix("fedpress: "))
    # The checkpoint is as large as the model, and a run that is done is not gone on with.
    shutil.rmtree(folder / CHECKPOINT, ignore_errors=True)
    (folder / FINISHED).touch()
    return Done(cell, folder, _finished(folder))


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
