"""`bench edge`: compares the device client with Flower's SuperNode, over TLS, with real processes."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from fedpress.common.errors import FedpressError
from fedpress.common.settings import Value
from fedpress.server.run.recorder import RESULT
from fedpress.simulations.bench import edge_bare, edge_device
from fedpress.simulations.bench.edge_parties import EdgeContender, FedpressContender, FlowerContender, end, wait_for
from fedpress.simulations.bench.memory import ProcessMemory, busy, peak, taken
from fedpress.simulations.settings import resolve
from fedpress.simulations.workloads import task

NODES = 2
NOTHING = 10  # float32 numbers of the model in rounds without training
SIZES = (25_000, 400_000)  # float32 numbers of models whose frames are measured
EXAMPLES = 600  # of the one node that trains, as in a federation of 100 on Fashion-MNIST
_SAMPLES = 5  # of a process's memory, of which the median is reported
_CALM = 2.0  # a client is idle after so many seconds in which none of its processes starts, ends or works
_WORK = 0.05  # CPU seconds in that time that are ignored: polling takes some


@dataclass(frozen=True)
class EchoRounds:
    """Measurements of rounds in which two nodes return the model unchanged."""

    floats: int  # of the model
    seconds: float  # of a round, median over all but the first
    requests: float  # of a client in a round, including polls without a message
    socket_bytes: int  # of all clients, both ways, including handshakes
    frame_bytes: int  # of the frames in them, or of Flower's arrays
    idle: ProcessMemory  # one client with all its processes, after the rounds


def bench_edge(*, rounds: int, repeats: int, note: Callable[[str], None]) -> dict[str, Any]:
    """Measure both contenders in turn, `repeats` times; return the medians and the ratios.

    `note` is called with lines of progress.
    """
    found: dict[str, list[EchoRounds]] = {"ours": [], "stock": []}
    sizes: dict[int, list[EchoRounds]] = {size: [] for size in SIZES}
    torch: list[ProcessMemory] = []
    peaks: dict[str, list[int]] = {"ours": [], "bare": []}
    for repeat in range(repeats):
        turn = f"{repeat + 1} of {repeats}"
        note(f"torch alone, {turn}")
        torch.append(_alone("torch").idle)
        for name, make in (("ours", _fedpress), ("stock", FlowerContender)):
            note(f"rounds without training: {name}, {turn}")
            found[name].append(_rounds(make(), NOTHING, rounds))
        for size in SIZES:
            note(f"frames of {4 * size:,} bytes, {turn}")
            sizes[size].append(_rounds(_fedpress(), size, rounds))
        note(f"training, {turn}")
        for name, high in _training().items():
            peaks[name].append(high)
    middle = {name: _median(runs) for name, runs in found.items()}
    alone = _median_memory(torch)
    trained = {name: statistics.median(values) for name, values in peaks.items()}
    sized = [_median(runs) for runs in sizes.values()]
    ours, stock = middle["ours"], middle["stock"]
    ratios = {
        "idle, RSS: ours - torch, MB": (ours.idle.rss - alone.rss) / 1e6,
        "idle, PSS: ours - torch, MB": (ours.idle.pss - alone.pss) / 1e6,
        "idle, RSS: ours / stock": ours.idle.rss / stock.idle.rss,
        "idle, PSS: ours / stock": ours.idle.pss / stock.idle.pss,
        "a round of nothing: ours / stock": ours.seconds / stock.seconds,
        "training, peak: ours / bare": trained["ours"] / trained["bare"],
    }
    ratios |= {
        f"socket / frames, frames of {4 * row.floats:,} bytes": row.socket_bytes / row.frame_bytes for row in sized
    }
    return {
        "command": f"fedpress bench edge --rounds {rounds} --repeats {repeats}",
        "rounds": rounds,
        "repeats": repeats,
        "nodes": NODES,
        "torch": alone._asdict(),
        "contenders": {name: _plain(row) for name, row in middle.items()},
        "frames": [_plain(row) for row in sized],
        "training": {"examples": EXAMPLES, "rounds": edge_bare.ROUNDS, **trained},
        "ratios": ratios,
    }


def _fedpress() -> FedpressContender:
    return FedpressContender("edge_device:ours")


def _rounds(party: EdgeContender, floats: int, rounds: int) -> EchoRounds:
    with _shared_folder() as place:
        (place / edge_device.FLOATS).write_text(str(floats))
        times, result = place / edge_device.TIMES, place / "run" / RESULT
        settings: dict[str, Value] = {"rounds": rounds}
        if isinstance(party, FedpressContender):
            settings |= {"task": "edge_device:nothing", "up": "none", "down": "none"}
        try:
            party.begin(place, NODES, settings)
            wait_for(lambda: party.over() or len(_read(times) or []) > rounds, "the rounds")
            socket = sum(line.up + line.down for line in party.lines)
            turns = sum(line.turns for line in party.lines)
            wait_for(party.over, "the end of the run")
            for device in party.devices[1:]:  # no other process may share pages with the measured one
                end(device)
            party.end_server()
            idle = _idle(party.devices[0])
            frames = 2 * NODES * rounds * 4 * floats
            if totals := (_read(result) or {}).get("totals"):
                frames = totals["uplink_bytes"] + totals["downlink_bytes"]
            ends = _read(times)
        finally:
            party.close()
    spans = [then - before for before, then in pairwise(ends)]
    return EchoRounds(floats, statistics.median(spans[1:] or spans), turns / NODES / rounds, socket, frames, idle)


def _training() -> dict[str, int]:
    """Return the peak memory of a client that trains the McMahan CNN, and of a bare script that trains it."""
    config = resolve({"workload": "fashion", "model": "mcmahan", "partition": "iid", "clients": 60000 // EXAMPLES})
    examples = task(config).examples(0)
    settings: dict[str, Value] = {
        "rounds": edge_bare.ROUNDS,
        "task": "edge_device:images",
        "lr": edge_bare.LR,
        "momentum": edge_bare.MOMENTUM,
        "batch-size": edge_bare.BATCH,
    }
    with _shared_folder() as place:
        np.savez(place / edge_device.DATA, x=examples.x.numpy(), y=examples.y.numpy())
        party = FedpressContender("fedpress.client.app:app")
        try:
            party.begin(place, 1, settings)
            wait_for(party.over, "the end of the training")
            ours = peak(party.devices[0])
        finally:
            party.close()
        return {"ours": ours, "bare": _alone("train", place).peak}


@dataclass(frozen=True)
class _Alone:
    idle: ProcessMemory
    peak: int


def _alone(name: str, place: Path | None = None) -> _Alone:
    """Run a bare script to its end; return its memory when idle, and its peak."""
    words = [str(place / edge_device.DATA), str(place / edge_device.MODELS)] if place else []
    command = [sys.executable, edge_bare.__file__, name, *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = psutil.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    try:
        if process.stdout.readline().decode().strip() != edge_bare.READY:
            raise FedpressError(f"the bare script {name} failed")
        return _Alone(_idle(process), peak(process))
    finally:
        process.communicate()


def _idle(process: psutil.Popen) -> ProcessMemory:
    before, since = busy(process), time.monotonic()

    def is_calm() -> bool:
        nonlocal before, since
        now = busy(process)
        if now.keys() != before.keys() or sum(now.values()) - sum(before.values()) > _WORK:
            before, since = now, time.monotonic()
        return time.monotonic() - since > _CALM

    wait_for(is_calm, "a client to be idle")
    samples = []
    for _ in range(_SAMPLES):
        if process.poll() is not None:
            raise FedpressError(f"a client ended with {process.returncode} where it should be idle")
        samples.append(taken(process))
        time.sleep(0.1)
    return _median_memory(samples)


@contextmanager
def _shared_folder() -> Iterator[Path]:
    """Make a folder that devices, the server and the benchmark share."""
    with tempfile.TemporaryDirectory(prefix="fedpress-bench-") as name:
        place = Path(name)
        here = Path(edge_device.__file__)
        shutil.copy(here, place / here.name)
        shutil.copy(here.parents[1] / "workloads" / edge_device.MODELS, place / edge_device.MODELS)
        before = os.environ.get(edge_device.PLACE)
        os.environ[edge_device.PLACE] = name  # SuperLink and its child processes inherit it
        sys.path.insert(0, name)
        try:
            yield place
        finally:
            sys.path.remove(name)
            del os.environ[edge_device.PLACE]
            if before is not None:
                os.environ[edge_device.PLACE] = before


def _read(path: Path) -> Any:
    return json.loads(path.read_text()) if path.exists() else None


def _median(runs: list[EchoRounds]) -> EchoRounds:
    row = {name: statistics.median(getattr(run, name) for run in runs) for name in ("seconds", "requests")}
    whole = {
        name: int(statistics.median(getattr(run, name) for run in runs)) for name in ("socket_bytes", "frame_bytes")
    }
    return EchoRounds(runs[0].floats, **row, **whole, idle=_median_memory([run.idle for run in runs]))


def _median_memory(samples: list[ProcessMemory]) -> ProcessMemory:
    return ProcessMemory(*(int(statistics.median(column)) for column in zip(*samples, strict=True)))


def _plain(row: EchoRounds) -> dict[str, Any]:
    return {**asdict(row), "idle": row.idle._asdict()}
