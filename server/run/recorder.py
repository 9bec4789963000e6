"""The run's folder: result.json and the model, replaced atomically after each round, so that a killed run has both.

Nothing reads them to resume a run: the recorder's state is part of the checkpoint, from which they are written anew.
"""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import MetricRecord

from fedpress.common.checked_files import read_checked, read_json, write_json, write_tensors
from fedpress.common.errors import DataError, SettingError
from fedpress.common.files import replace, set_aside, write_tail
from fedpress.common.version import versions
from fedpress.compression import Update
from fedpress.compression.model.plan import PLAN
from fedpress.server.messaging.ledger import Ledger, Totals
from fedpress.server.run.accuracy_summary import spread
from fedpress.server.strategy.round_record import CountedReply, Round
from fedpress.settings import RunSettings

SCHEMA = 1
RECORDER = "recorder"  # its state's name in checkpoints
RESULT, MODEL, CHECKPOINT, TRAFFIC = "result.json", "model.safetensors", "checkpoint", "clients.csv"
_COLUMNS = (
    *("round", "node", "down_frame", "down_message", "up_frame", "up_message"),
    *("examples", "weight", "norm", "training_seconds", "coding_seconds", "train_loss", "accuracy", "loss"),
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
        start = settings.simulation.start
        if start and (plan := Path(start) / PLAN).is_file() and not (folder / PLAN).exists():
            replace(folder / PLAN, plan.read_bytes(), durable=True)
        self._ledger = ledger
        self._result: dict[str, Any] = {
            "schema": SCHEMA,
            "config": settings.to_result(),
            "versions": versions(),
            "rounds": [],
        }
        self._clients = bytearray(_row(_COLUMNS))  # the content of clients.csv
        self._entries = 0  # number of the ledger's entries that are in it

    def __call__(self, done: Round) -> None:
        """Record a finished round; round 0, the initial model, has no row."""
        self._write_clients(done)
        scores = {
            name: _number(value) for name, value in (done.evaluation or {}).items() if isinstance(value, int | float)
        }
        if done.number == 0:
            self._result["initial"] = scores
        else:
            up, down = (self._ledger.totals(round=done.number, direction=d, purpose="train") for d in ("up", "down"))
            row: dict[str, Any] = {
                "round": done.number,
                **scores,
                **_train_loss(done),
                **_bytes(up, down),
                "clients": len(done.counted),
                "failures": done.failures,
                "seconds": round(done.seconds, 6),
            }
            evaluated = self._ledger.totals(round=done.number, purpose="evaluate")
            if evaluated.message:
                row |= {"evaluate_bytes": evaluated.frame, "evaluate_message_bytes": evaluated.message}
            accuracies = [
                value
                for metrics in done.node_evaluations.values()
                if isinstance(value := metrics.get("accuracy"), int | float) and math.isfinite(value)
            ]
            if accuracies:
                row["nodes_accuracy"] = spread(accuracies)
            added = {**done.facts, **done.scores}
            if taken := sorted(row.keys() & added.keys()):
                raise SettingError(f"an extension's entries must have other names than a round's own, got {taken[0]!r}")
            self._result["rounds"].append({**row, **added})
        up, down = (self._ledger.totals(direction=d, purpose="train") for d in ("up", "down"))
        both = self._ledger.totals(purpose="train")
        self._result["totals"] = {
            **_bytes(up, down),
            "uplink_ratio": round(up.ratio, 4),
            "downlink_ratio": round(down.ratio, 4),
            "ratio": round(both.ratio, 4),
            "seconds": round(sum(row["seconds"] for row in self._result["rounds"]), 6),
        }
        self._result["final"] = {**scores, **done.scores}
        models = {MODEL: done.model} | {MODEL.replace(".", f"-{name}."): model for name, model in done.groups.items()}
        for name, model in models.items():
            write_tensors(self._folder / name, model)
        write_json(self._folder / RESULT, self._result)

    def finish(self, scores: Mapping[str, Any], model: Update) -> None:
        """Write the final model, and the result with the scores that extensions measured after the last round."""
        self._result["final"] |= scores
        write_tensors(self._folder / MODEL, model, durable=True)
        write_json(self._folder / RESULT, self._result, durable=True)

    def dump_state(self) -> dict[str, Any]:
        """Return the content of result.json and clients.csv, for checkpoints."""
        texts = {RESULT: json.dumps(self._result).encode(), TRAFFIC: self._clients}
        return {name: np.frombuffer(bytes(text), np.uint8) for name, text in texts.items()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Write the two files as they were when `dump_state` was called, and continue from there."""
        self._result |= {name: value for name, value in recorded(state).items() if name not in ("config", "versions")}
        self._clients = bytearray(state[TRAFFIC].tobytes())
        self._entries = len(self._ledger)
        self._set_broken_aside()
        replace(self._folder / TRAFFIC, bytes(self._clients))
        write_json(self._folder / RESULT, self._result)

    def _set_broken_aside(self) -> None:
        """Set files aside that are not what was written; those of an unfinished round are written over."""
        for path in (self._folder / RESULT, *self._folder.glob(MODEL.replace(".", "*."))):
            if path.exists():
                try:
                    read_checked(path) if path.suffix == ".safetensors" else read_json(path)
                except DataError as error:
                    set_aside(path, error)
        traffic = self._folder / TRAFFIC
        if traffic.exists() and not traffic.read_bytes().startswith(self._clients):
            set_aside(traffic, "its rows are not those of the checkpoint")

    def _write_clients(self, done: Round) -> None:
        """Add the round's row for each node to clients.csv."""
        nodes: dict[str, dict[str, Totals]] = {}
        for entry in self._ledger.since(self._entries):
            if entry.purpose == "train" and entry.round == done.number:
                by_direction = nodes.setdefault(entry.node, {"down": Totals(), "up": Totals()})
                by_direction[entry.direction] = by_direction[entry.direction].plus(entry)
        for node in done.node_evaluations:
            nodes.setdefault(node, {"down": Totals(), "up": Totals()})
        written, self._entries = len(self._clients) if self._entries else 0, len(self._ledger)
        for node, by_direction in nodes.items():
            sent = (n for total in by_direction.values() for n in (total.frame, total.message))
            row = (done.number, node, *sent, *_work(done.counted.get(node)), *_scores(done, node))
            self._clients += _row(row)
        write_tail(self._folder / TRAFFIC, self._clients, written)


def _work(counted: CountedReply | None) -> tuple[object, ...]:
    if counted is None:
        return ("",) * 6
    time, loss = counted.time, "" if counted.train_loss is None else counted.train_loss
    # Short numbers: each checkpoint holds all rows, so that a damaged clients.csv is not lost.
    measured = (float(f"{value:.6g}") for value in (counted.norm, time.training, time.coding))
    return counted.claim, counted.weight, *measured, loss


def _scores(done: Round, node: str) -> tuple[object, ...]:
    metrics = done.node_evaluations.get(node) or MetricRecord()
    values = (metrics.get(name) for name in ("accuracy", "loss"))
    return tuple(value if isinstance(value, int | float) else "" for value in values)


def _train_loss(done: Round) -> dict[str, float | None]:
    """Return the mean training loss of the nodes that report one, weighted as their updates."""
    known = [(reply.train_loss, reply.weight) for reply in done.counted.values() if reply.train_loss is not None]
    if not known:
        return {}
    mean = sum(loss * weight for loss, weight in known) / sum(weight for _, weight in known)
    return {"train_loss": _number(mean)}


def recorded(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of result.json in a state that `Recorder.dump_state` returned."""
    result: dict[str, Any] = json.loads(state[RESULT].tobytes())
    return result


def _row(cells: Iterable[object]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()


def _number(value: float) -> float | None:
    """Return a score as JSON can hold it: None if it is infinite or NaN, as a loss of training that diverges may be."""
    return float(value) if math.isfinite(value) else None


def _bytes(up: Totals, down: Totals) -> dict[str, int]:
    return {
        "uplink_bytes": up.frame,
        "downlink_bytes": down.frame,
        "uplink_message_bytes": up.message,
        "downlink_message_bytes": down.message,
    }
