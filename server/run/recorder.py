"""The run's folder: result.json and the model, replaced atomically after each round, so that a killed run has both."""

import csv
import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from fedpress.common.files import replace
from fedpress.common.version import VERSION
from fedpress.compression.model.plan import PLAN
from fedpress.server.messaging.ledger import Ledger, Totals
from fedpress.server.run.accuracy_summary import spread
from fedpress.server.strategy.round_record import Round
from fedpress.settings import RunSettings

SCHEMA = 1
RESULT, MODEL, CHECKPOINT, TRAFFIC = "result.json", "model.safetensors", "checkpoint", "clients.csv"
_COLUMNS = (
    *("round", "node", "down_frame", "down_message", "up_frame", "up_message"),
    *("examples", "training_seconds", "coding_seconds"),
)


class Recorder:
    """Writes DIR/result.json, DIR/model.safetensors and DIR/clients.csv; their format is in docs/how-to/simulate.md.

    Bytes are those of training; those of evaluations by the nodes are separate. Where groups of nodes have different
    models, each has a file, `model-GROUP`. A run that starts from a smaller model gets a copy of its plan.json, so
    that it can be read without the folder of that model.
    """

    def __init__(
        self,
        folder: Path,
        settings: RunSettings,
        ledger: Ledger,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)  # that of a Flower run may not exist yet
        self._folder = folder
        resumed = settings.run.resume and (folder / RESULT).exists()
        start = settings.simulation.start
        if start and not resumed and (plan := Path(start) / PLAN).is_file():
            replace(folder / PLAN, plan.read_bytes())
        self._ledger = ledger
        self._result: dict[str, Any] = {
            "schema": SCHEMA,
            "config": settings.to_result(),
            "versions": versions(),
            "rounds": [],
        }
        self._seconds = 0.0
        if resumed:
            self._result = json.loads((folder / RESULT).read_bytes())
        self._entries = 0  # number of the ledger's entries that are in clients.csv already

    def __call__(self, done: Round) -> None:
        """Record a finished round; round 0, the initial model, has no row."""
        self._write_clients(done)
        # A run that was killed after this and before its checkpoint repeats the round.
        self._result["rounds"] = [row for row in self._result["rounds"] if row["round"] < done.number]
        self._seconds = sum(row["seconds"] for row in self._result["rounds"])
        self._seconds += done.seconds
        scores = {
            name: float(value) for name, value in (done.evaluation or {}).items() if isinstance(value, int | float)
        }
        if done.number == 0:
            self._result["initial"] = scores
        else:
            up, down = (self._ledger.totals(round=done.number, direction=d, purpose="train") for d in ("up", "down"))
            row: dict[str, Any] = {
                "round": done.number,
                **scores,
                **_bytes(up, down),
                **done.facts,
                **done.scores,
                "clients": len(done.counted),
                "failures": done.failures,
                "seconds": round(done.seconds, 6),
            }
            evaluated = self._ledger.totals(round=done.number, purpose="evaluate")
            if evaluated.message:
                row |= {"evaluate_bytes": evaluated.frame, "evaluate_message_bytes": evaluated.message}
            accuracies = [
                value for m in done.node_evaluations.values() if isinstance(value := m.get("accuracy"), int | float)
            ]
            if accuracies:
                row["nodes_accuracy"] = spread(accuracies)
            self._result["rounds"].append(row)
        up, down = (self._ledger.totals(direction=d, purpose="train") for d in ("up", "down"))
        both = self._ledger.totals(purpose="train")
        self._result["totals"] = {
            **_bytes(up, down),
            "uplink_ratio": round(up.ratio, 4),
            "downlink_ratio": round(down.ratio, 4),
            "ratio": round(both.ratio, 4),
            "seconds": round(self._seconds, 6),
        }
        self._result["final"] = {**scores, **done.scores}
        self._write(done)

    def finish(self, scores: Mapping[str, Any]) -> None:
        """Add the extensions' scores, measured after the last round, to the final scores."""
        if scores:
            self._result["final"] |= scores
            replace(self._folder / RESULT, json.dumps(self._result, indent=1).encode())

    def _write_clients(self, done: Round) -> None:
        """Add the round's row for each node; the first time keep those of earlier rounds, if a run is resumed."""
        path, lines = self._folder / TRAFFIC, [",".join(_COLUMNS)]
        if not self._entries:
            if done.number > 0 and path.exists():
                old = path.read_text(encoding="utf-8").splitlines()[1:]
                lines += [line for line in old if int(line.split(",", 1)[0]) < done.number]
            replace(path, "".join(line + "\n" for line in lines).encode())
        nodes: dict[str, dict[str, Totals]] = {}
        for entry in self._ledger.since(self._entries):
            if entry.purpose == "train" and entry.round == done.number:
                by_direction = nodes.setdefault(entry.node, {"down": Totals(), "up": Totals()})
                by_direction[entry.direction] = by_direction[entry.direction].plus(entry)
        self._entries = len(self._ledger)
        with path.open("a", encoding="utf-8", newline="") as file:
            for node, by_direction in nodes.items():
                row = [done.number, node, *(n for total in by_direction.values() for n in (total.frame, total.message))]
                counted = done.counted.get(node)
                work = (counted.weight, counted.time.training, counted.time.coding) if counted else ("", "", "")
                csv.writer(file, lineterminator="\n").writerow([*row, *work])

    def _write(self, done: Round) -> None:
        files = {MODEL: done.model} | {MODEL.replace(".", f"-{name}."): model for name, model in done.groups.items()}
        for name, model in files.items():
            replace(self._folder / name, save({tensor: np.asarray(a, order="C") for tensor, a in model.items()}))
        replace(self._folder / RESULT, json.dumps(self._result, indent=1).encode())


def versions() -> dict[str, str]:
    """Return the versions of the software, and the number of cores, that the run uses."""
    software = {"python": platform.python_version(), "cores": str(os.cpu_count()), "fedpress": VERSION}
    return software | {package: version(package) for package in ("flwr", "torch", "numpy")}


def _bytes(up: Totals, down: Totals) -> dict[str, int]:
    return {
        "uplink_bytes": up.frame,
        "downlink_bytes": down.frame,
        "uplink_message_bytes": up.message,
        "downlink_message_bytes": down.message,
    }
