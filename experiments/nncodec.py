#!/usr/bin/env python3
"""Measure codecs and NNCodec, https://github.com/fraunhoferhhi/nncodec, an ISO/IEC 15938-17 coder, on recorded updates.

    python experiments/nncodec.py PYTHON --updates updates > docs/results/data/codec.json

PYTHON is the interpreter of an environment that has NNCodec (`pip install nncodec==2.1.3`). Its quality is set by
a quantisation parameter and by lambda_scale, how much a bit weighs in its decisions: its public function leaves that at
0, and its best is elsewhere, so both are swept, and the lower hull is what it can do.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedpress.common.errors import SettingError
from fedpress.compression import Layout, Update
from fedpress.simulations.bench.codec import bench_codec, default_specs
from fedpress.simulations.bench.recorded_updates import recorded

QPS = tuple(range(-72, 9, 4))
LAMBDAS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
ASKED = {0.3: 0.20, 0.1: 0.20, 0.03: 0.4, 0.01: 0.8}  # nmse: bytes of `best` over those of NNCodec that are asked for
_WORKER = Path(__file__).with_name("nncodec_worker.py")


@dataclass(frozen=True)
class Point:
    """What NNCodec does under one setting."""

    qp: int
    lambda_scale: float
    bytes: int
    nmse: float
    encode: float  # seconds
    decode: float


def sweep(python: Path, update: Update, cache: Path) -> list[Point]:
    """Return a point for each setting; from `cache`, where this update was swept before.

    Raises
    ------
    SettingError
        If `python` has no NNCodec that works.
    """
    digest = hashlib.blake2b(Layout.of(update).flatten(update)[0].tobytes(), digest_size=8).hexdigest()
    kept = cache / f"nncodec-{digest}.json"
    points = [Point(**row) for row in json.loads(kept.read_text())] if kept.exists() else []
    known = {(point.qp, point.lambda_scale) for point in points}
    settings = [(qp, scale) for scale in LAMBDAS for qp in QPS if (qp, scale) not in known]
    if not settings:
        return points
    points += run(python, update, settings, repeats=1)
    cache.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps([asdict(point) for point in points]))
    return points


def run(python: Path, update: Update, settings: Sequence[tuple[int, float]], repeats: int) -> list[Point]:
    """Return what NNCodec does under these settings; the fastest of `repeats` counts."""
    floats = {name: array for name, array in update.items() if array.dtype == np.float32}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "update.npz"
        np.savez(path, **floats)  # type: ignore[arg-type]
        command = [str(python), "-I", str(_WORKER), str(path), json.dumps(settings), str(repeats)]
        alone = {**os.environ, "OMP_NUM_THREADS": "1"}
        try:
            done = subprocess.run(command, cwd=folder, env=alone, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            last = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[-1]
            raise SettingError(f"NNCodec does not run under {python}: {last}") from error
    return [Point(**json.loads(line)) for line in done.stdout.splitlines()]


def bytes_at(points: list[Point], nmse: float) -> float | None:
    """Return the bytes at `nmse` on the lower convex hull of bytes over log nmse; None beyond its ends."""
    hull: list[tuple[float, float]] = []
    for x, y in sorted((float(np.log(p.nmse)), float(p.bytes)) for p in points if p.nmse > 0):
        # The last point stays only if it lies below the line from the one before it to the new one.
        while len(hull) > 1 and (hull[-1][1] - hull[-2][1]) * (x - hull[-2][0]) >= (y - hull[-2][1]) * (
            hull[-1][0] - hull[-2][0]
        ):
            hull.pop()
        hull.append((x, y))
    at = float(np.log(nmse))
    if not hull or not hull[0][0] <= at <= hull[-1][0]:
        return None
    return float(np.interp(at, [x for x, _ in hull], [y for _, y in hull]))


def near(points: list[Point], nmse: float) -> Point:
    """Return the point of fewest bytes among those whose error is at most a quarter off, else the nearest."""
    close = [p for p in points if abs(np.log(p.nmse / nmse)) < np.log(1.25)]
    return min(close, key=lambda p: p.bytes) if close else min(points, key=lambda p: abs(float(np.log(p.nmse / nmse))))


def targets(
    update: Update, rows: Sequence[dict[str, Any]], points: list[Point], timed: Sequence[Point]
) -> list[dict[str, Any]]:
    """Return for each nmse how `best` and `fast` stand to NNCodec on its lower hull."""
    megabytes = Layout.of(update).nbytes / 1e6
    out = []
    for (error, asked), peer in zip(ASKED.items(), timed, strict=True):
        hull = bytes_at(points, error)
        row: dict[str, Any] = {"nmse": error, "nncodec_bytes": hull, "asked": asked}
        row |= {"nncodec_encode": megabytes / peer.encode, "nncodec_decode": megabytes / peer.decode}
        for name in ("best", "fast"):
            mine = next((r for r in rows if r["spec"] == f"{name}(nmse={error})"), None)
            if mine is not None:
                row[f"{name}_bytes"] = mine["bytes"] / hull if hull else None
                row[f"{name}_encode"] = mine["encode"] / row["nncodec_encode"]
                row[f"{name}_decode"] = mine["decode"] / row["nncodec_decode"]
        out.append(row)
    return out


def main() -> None:
    """Print, as JSON, what `fedpress bench codec` prints, and how it compares with NNCodec."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python", type=Path)
    parser.add_argument("--updates", type=Path, default=Path("updates"))
    parser.add_argument("--only", default="", help="names of updates, with commas")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cache", type=Path, default=Path("nncodec-cache"))
    given = parser.parse_args()
    updates = [row for row in recorded(given.updates) if not given.only or row[0] in given.only.split(",")]
    result = bench_codec(
        updates, default_specs(), repeats=given.repeats, note=lambda line: print(line, file=sys.stderr)
    )
    for (name, update, _), found in zip(updates, result, strict=True):
        print(f"{name}: NNCodec", file=sys.stderr)
        points = sweep(given.python, update, given.cache)
        # The points may have been kept from another day: speed is measured now.
        chosen = [near(points, error) for error in ASKED]
        timed = run(given.python, update, [(point.qp, point.lambda_scale) for point in chosen], given.repeats)
        found["nncodec"] = [asdict(point) for point in points]
        found["targets"] = targets(update, found["codecs"], points, timed)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
