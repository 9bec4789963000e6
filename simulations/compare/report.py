"""The output of a comparison: report.html, which opens offline, PNGs, results.csv and results.json."""

import csv
import io
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from fedpress.common.files import replace
from fedpress.common.settings import Value
from fedpress.common.units import amount, duration
from fedpress.common.version import versions
from fedpress.simulations.compare.executor import CellResult
from fedpress.simulations.compare.page_data import settings_data, workload_data
from fedpress.simulations.compare.plots import draw, styles_of
from fedpress.simulations.compare.recommendation import Recommendation, savings
from fedpress.simulations.compare.scores import PARTS, CandidateScore, spread
from fedpress.simulations.figures import save_figure
from fedpress.simulations.network.devices import DeviceClass
from fedpress.simulations.network.links import Link

REPORT, TABLE, RESULTS = "report.html", "results.csv", "results.json"
SCHEMA = 2  # since version 2 bytes both ways are those of messages, and rows are by bytes to the target
COSTS = ("rounds", *PARTS, "both", "seconds", "joules")
_COLUMNS = (
    *("candidate", "bytes to target", "up, %", "down, %", "transport, %", "accuracy, %", "points lost", "bytes up"),
    *("bytes down", "times fewer up", "times fewer down", "times fewer both ways", "simulated time", "time to target"),
    *("rounds to target", "energy to target"),
)


@dataclass(frozen=True)
class Comparison:
    """The content of a report."""

    done: Sequence[CellResult]
    scores: Sequence[CandidateScore]
    advice: Sequence[Recommendation]
    link: Link
    devices: DeviceClass
    deadline: float
    command: str
    title: str = "What compression costs, and what it keeps"


def write(comparison: Comparison, folder: Path) -> dict[str, Any]:
    """Write all files into `folder`; return the content of results.json."""
    result = results(comparison)
    replace(folder / RESULTS, json.dumps(result, indent=1).encode())
    replace(folder / TABLE, _csv(result["cells"]).encode())
    workloads = []
    for advice in comparison.advice:
        scores = [score for score in comparison.scores if score.workload == advice.workload]
        for name, figure in draw(scores, link=comparison.link.name).items():
            save_figure(figure, folder / f"{name}.png", dpi=150, facecolor="white")
        optional = list(dict.fromkeys(name for score in scores if score.runs for name in score.measures))
        workloads.append(
            {
                "name": advice.workload,
                "columns": [*_COLUMNS, *optional],
                "about": _about(comparison.done, advice.workload),
                "advice": _advice(advice),
                "bars": _bars(scores),
                "rows": [_row(score, optional) for score in scores],
                "target": f"{100 * scores[0].target:.2f} %",
            }
        )
    environment = Environment(
        loader=PackageLoader("fedpress.simulations.compare", "."), autoescape=True, undefined=StrictUndefined
    )
    environment.trim_blocks = environment.lstrip_blocks = True
    page = environment.get_template("report.html.jinja").render(
        workloads=workloads,
        data={
            "workloads": [
                workload_data([score for score in comparison.scores if score.workload == advice.workload])
                for advice in comparison.advice
            ],
            "settings": settings_data(comparison.done),
        },
        title=comparison.title,
        runs=len(comparison.done),
        candidates=list(dict.fromkeys(done.cell.candidate.name for done in comparison.done)),
        seeds=list(dict.fromkeys(done.cell.seed for done in comparison.done)),
        link=_link(comparison.link),
        fleet={"name": comparison.devices.name, "about": _fleet(comparison.devices)},
        deadline=f"A round is over after {comparison.deadline:g} seconds." if comparison.deadline else "",
        versions=result["versions"],
        command=comparison.command,
        failures=[{"cell": str(done.cell), "reason": done.reason} for done in comparison.done if not done.result],
    )
    replace(folder / REPORT, page.encode())
    return result


def results(comparison: Comparison) -> dict[str, Any]:
    """Return the content of results.json."""
    link = {key: value for key, value in asdict(comparison.link).items() if key not in ("trace", "power")}
    return {
        "schema": SCHEMA,
        "command": comparison.command,
        "versions": versions(),
        "link": link,
        "fleet": asdict(comparison.devices),
        "deadline": comparison.deadline,
        "candidates": [_summary(score) for score in comparison.scores],
        "advice": [{"workload": advice.workload, **_advice(advice)} for advice in comparison.advice],
        "cells": [row for score in comparison.scores for row in _cells(score)],
        "failures": [
            {"workload": d.cell.workload, "candidate": d.cell.candidate.name, "seed": d.cell.seed, "reason": d.reason}
            for d in comparison.done
            if not d.result
        ],
    }


def _summary(score: CandidateScore) -> dict[str, Any]:
    about: dict[str, Any] = {
        "workload": score.workload,
        "candidate": score.name,
        "up": score.candidate.up,
        "down": score.candidate.down,
        "settings": dict(score.candidate.settings),
        "after": [list(words) for words in score.candidate.after],
        "target": score.target,
        "failures": list(score.failures),
    }
    if not score.runs:
        return about
    means = {
        what: {"mean": score.mean(what), "spread": score.spread(what)} for what in ("final", *PARTS, "both", "seconds")
    }
    about |= {"lost": score.lost, "shares": score.shares}
    ratios = {f"{way}_ratio": score.ratio(way) for way in ("up", "down", "both")}
    optional = {
        name: {"mean": statistics.fmean(values), "spread": spread(values)} for name, values in score.measures.items()
    }
    costs = {what: score.cost(what) for what in COSTS}
    return {**about, **means, **ratios, "to_target": costs, "measures": optional}


def _cells(score: CandidateScore) -> list[dict[str, Any]]:
    rows = []
    for number, run in enumerate(score.runs):
        reached = {f"{what}_to_target": score.to_target(what)[number] for what in COSTS}
        row: dict[str, Value | None] = {"workload": score.workload, "candidate": score.name, "seed": run.seed}
        row |= {"accuracy": run.final, "seconds": run.seconds[-1], **{part: getattr(run, part)[-1] for part in PARTS}}
        rows.append({**row, **reached, **run.measures})
    return rows


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO(newline="")
    columns = list(dict.fromkeys(name for row in rows for name in row)) or ["workload"]
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _row(score: CandidateScore, optional: Sequence[str]) -> list[dict[str, Any]]:
    row: list[dict[str, Any]] = [{"value": score.name, "text": score.name}]
    if not score.runs:
        columns = len(_COLUMNS) - 1 + len(optional)
        return row + [{"value": "", "text": "failed" if at == 0 else ""} for at in range(columns)]
    final, spread = 100 * score.mean("final"), 100 * score.spread("final")
    row.append(_cell(score.cost("both"), amount, "not reached"))
    row += [_cell(100 * score.shares[part], lambda share: f"{share:.1f}") for part in PARTS]
    row.append({"value": f"{final:.6f}", "text": f"{final:.2f} ± {spread:.2f}"})
    row.append(_cell(score.lost, lambda lost: f"{lost:.2f}"))
    row += [_cell(score.mean(way), amount) for way in ("up", "down")]
    row += [_cell(score.ratio(way), lambda ratio: f"{ratio:.1f}") for way in ("up", "down", "both")]
    row.append(_cell(score.mean("seconds"), duration))
    for what, unit in (("seconds", duration), ("rounds", lambda n: f"{n:.0f}"), ("joules", _joules)):
        missed = "not known" if what == "joules" and score.cost("rounds") is not None else "not reached"
        row.append(_cell(score.cost(what), unit, missed))
    for name in optional:
        values = score.measures.get(name)
        row.append(_cell(statistics.fmean(values) if values else None, lambda value: f"{value:.4g}"))
    return row


def _bars(scores: Sequence[CandidateScore]) -> list[dict[str, Any]]:
    """Return a bar for each candidate's bytes until the target, with their parts."""
    ran = [score for score in scores if score.runs]
    styles = styles_of(ran)
    most = max((score.cost("both") or 0.0 for score in ran), default=0.0)
    return [
        {
            "name": score.name,
            "text": _cell(score.cost("both"), amount, "not reached")["text"],
            "parts": {part: f"{75 * (score.cost(part) or 0.0) / max(1.0, most):.2f}" for part in PARTS},
            "colour": styles[score.name].colour,
        }
        for score in ran
    ]


def _cell(value: float | None, unit: Any, missed: str = "") -> dict[str, Any]:
    return {"value": "" if value is None else f"{value:.9g}", "text": missed if value is None else unit(value)}


def _joules(value: float) -> str:
    return f"{value / 1e3:.3g} kJ" if value >= 1e3 else f"{value:.3g} J"


def _advice(advice: Recommendation) -> dict[str, Any]:
    choice, second = advice.choice, advice.second
    if choice is None:
        return {"choice": None, "reason": advice.reason}
    confidence = "No other candidate qualifies."
    if second is not None:
        confidence = (
            f"It takes fewer bytes than the second, {second.name}, in {advice.wins} of {advice.seeds} seeds"
            + ("." if advice.sure else ": more seeds would show whether that is chance.")
        )
    return {
        "choice": choice.name,
        "up": choice.candidate.up,
        "down": choice.candidate.down,
        "reason": advice.reason,
        "second": second.name if second else None,
        "wins": advice.wins,
        "seeds": advice.seeds,
        "sure": advice.sure,
        "confidence": confidence,
        "savings": savings(choice),
    }


def _about(done: Sequence[CellResult], workload: str) -> str:
    cell = next(one.cell for one in done if one.cell.workload == workload)
    if cell.is_app:
        return f"The Flower app {workload}, with its own strategy and training, on {cell.app.clients} nodes."
    simulation, server = cell.settings.simulation, cell.settings.server
    model = f", model {simulation.model}" if simulation.model else ""
    alpha = f"({simulation.alpha})" if simulation.partition == "dirichlet" else ""
    return (
        f"{simulation.clients} clients, {server.per_round} a round, {server.rounds} rounds, partition "
        f"{simulation.partition}{alpha}{model}, strategy {cell.settings.strategy.name} where a candidate does not name "
        "another."
    )


def _link(link: Link) -> dict[str, str]:
    more = [f", {100 * link.loss:g} % lost"] if link.loss else []
    more += [f", {100 * link.duty:g} % of the time"] if link.duty < 1 else []
    rates = {way: f"{getattr(link, way) / 1e6:g} Mbit/s" for way in ("up", "down")}
    return {"name": link.name, **rates, "latency": duration(link.latency), "more": "".join(more), "source": link.source}


def _fleet(fleet: DeviceClass) -> str:
    slower = "as fast as" if fleet.slower == 1 else f"{fleet.slower:g} times slower than"
    words = f"devices train {slower} the machine that ran this"
    if fleet.spread:
        words += f", log-normal with {fleet.spread:g}"
    if fleet.stragglers:
        words += f", {100 * fleet.stragglers:g} % of them {fleet.straggling:g} times slower still"
    if fleet.dropouts:
        words += f", {100 * fleet.dropouts:g} % leave a round"
    return words
