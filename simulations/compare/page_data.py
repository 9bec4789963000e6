"""The data of a report's page, which its script draws: rounds and nodes of each run, and the runs' settings."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedpress.server.run.recorder import TRAFFIC
from fedpress.simulations.compare.executor import CellResult
from fedpress.simulations.compare.plots import styles_of
from fedpress.simulations.compare.scores import CandidateScore, CellHistory, front

_DASHES = {"-": "", "--": "7 4", "-.": "8 3 2 3", ":": "2 3"}  # of SVG, by matplotlib's names


@dataclass
class NodeTotals:
    """What one node did in a run."""

    name: str
    rounds: int = 0  # in which its reply counted
    up: int = 0  # bytes of its messages
    down: int = 0
    training: float = 0.0  # seconds
    train_loss: float | None = None  # of the last round in which it trained
    accuracy: float | None = None  # of its last evaluation


def workload_data(scores: Sequence[CandidateScore]) -> dict[str, Any]:
    """Return the data of one workload's charts as JSON values."""
    styles = styles_of([score for score in scores if score.runs])
    fronts = {way: [score.name for score in front(scores, way)] for way in ("both", "up", "down")}
    return {
        "name": scores[0].workload,
        "target": scores[0].target,
        "fronts": fronts,
        "series": [
            {
                "name": score.name,
                "colour": styles[score.name].colour,
                "dash": _DASHES[styles[score.name].dash],
                "shown": styles[score.name].highlighted,
                "final": score.mean("final"),
                "spread": score.spread("final"),
                "both": score.mean("both"),
                "up": score.mean("up"),
                "down": score.mean("down"),
                "to_target": score.cost("both"),
                "runs": [_run(run) for run in score.runs],
            }
            for score in scores
            if score.runs
        ],
    }


def settings_data(done: Sequence[CellResult]) -> dict[str, Any]:
    """Return the settings that all runs share, and those of each run that differ, as JSON values."""
    configs = {str(one.cell): dict(one.cell.config) for one in done}
    first = next(iter(configs.values()))
    shared = {
        key: value for key, value in first.items() if all(config.get(key) == value for config in configs.values())
    }
    own = {name: {k: v for k, v in config.items() if k not in shared} for name, config in configs.items()}
    return {"shared": shared, "runs": own}


def _run(run: CellHistory) -> dict[str, Any]:
    return {
        "seed": run.seed,
        "accuracy": [round(value, 6) for value in run.smooth],
        "loss": [_finite(value) for value in run.loss],
        "train_loss": [_finite(value) for value in run.train_loss],
        "up": run.up,
        "down": run.down,
        "transport": run.transport,
        "seconds": [round(value, 3) for value in run.seconds],
        "nodes": [asdict(node) for node in read_nodes(run.folder / TRAFFIC)],
    }


def _finite(value: float | None) -> float | None:
    """Return a number that JSON can hold, to six significant digits; None for a loss that diverged."""
    return float(f"{value:.6g}") if value is not None and math.isfinite(value) else None


def read_nodes(path: Path) -> list[NodeTotals]:
    """Return what each node did, from a run's clients.csv, in the order of their first rounds."""
    nodes: dict[str, NodeTotals] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            _add(nodes.setdefault(row["node"], NodeTotals(row["node"])), row)
    return list(nodes.values())


def _add(node: NodeTotals, row: Mapping[str, str]) -> None:
    node.rounds += bool(row["examples"])
    node.up += int(row["up_message"])
    node.down += int(row["down_message"])
    node.training += float(row["training_seconds"] or 0)
    node.train_loss = _finite(float(row["train_loss"])) if row["train_loss"] else node.train_loss
    node.accuracy = _finite(float(row["accuracy"])) if row["accuracy"] else node.accuracy
