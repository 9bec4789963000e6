"""Scores of runs: accuracy, bytes, seconds and joules until a target, with means and spreads over seeds."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from fedpress.server.run.recorder import TRAFFIC
from fedpress.simulations.compare.candidates import REFERENCE, Candidate
from fedpress.simulations.compare.executor import CellResult
from fedpress.simulations.compare.measures import measures
from fedpress.simulations.network.clock import Pace, clock, measure, read_visits
from fedpress.simulations.network.devices import DeviceClass
from fedpress.simulations.network.links import Link


@dataclass(frozen=True)
class CellHistory:
    """One finished cell, round by round; round 0 is the initial model, without a cost."""

    seed: int
    accuracy: tuple[float, ...]
    up: tuple[int, ...]  # cumulative bytes of frames
    down: tuple[int, ...]
    seconds: tuple[float, ...]  # cumulative, on the link
    joules: tuple[float, ...] | None  # cumulative, of all radios together
    loss: tuple[float | None, ...]  # on the test set; None where it was not measured
    train_loss: tuple[float | None, ...]  # of the nodes' training
    plain_up: float  # bytes of the same tensors as float32
    plain_down: float
    folder: Path
    measures: Mapping[str, float] = field(default_factory=dict)  # that only some runs have, by name and unit

    @property
    def last(self) -> int:
        """The number of last rounds that accuracy is averaged over."""
        return last_rounds(len(self.accuracy) - 1)

    @cached_property
    def smooth(self) -> tuple[float, ...]:
        """Accuracy as the mean over the last rounds, for each round."""
        return tuple(
            float(np.mean(self.accuracy[max(0, end - self.last) : end])) for end in range(1, len(self.accuracy) + 1)
        )

    @property
    def final(self) -> float:
        """Mean accuracy of the last rounds."""
        return self.smooth[-1]

    def reaches(self, target: float) -> int | None:
        """Return the first round in which the mean over the last rounds is at least `target`; None without one."""
        return next((number for number, value in enumerate(self.smooth) if number and value >= target), None)


@dataclass(frozen=True)
class CandidateScore:
    """A candidate on a workload, over all seeds that were run to the end."""

    workload: str
    candidate: Candidate
    runs: tuple[CellHistory, ...]  # by seed
    failures: tuple[str, ...]  # reasons of those that failed
    target: float
    pace: Pace

    @property
    def name(self) -> str:
        """The candidate's name."""
        return self.candidate.name

    def mean(self, what: str) -> float:
        """Return the mean over seeds of `final`, or of a total: up, down, seconds."""
        return statistics.fmean(_value(run, what) for run in self.runs)

    def spread(self, what: str) -> float:
        """Return the standard deviation over seeds of the same; 0 of one seed."""
        return spread([_value(run, what) for run in self.runs])

    @property
    def measures(self) -> dict[str, tuple[float, ...]]:
        """The values of each optional measure that all runs have."""
        names = [name for name in self.runs[0].measures if all(name in run.measures for run in self.runs)]
        return {name: tuple(run.measures[name] for run in self.runs) for name in names}

    def ratio(self, way: str) -> float:
        """Return the compression ratio against float32 in one direction."""
        plain = sum(run.plain_up if way == "up" else run.plain_down for run in self.runs)
        return plain / max(1, sum((run.up if way == "up" else run.down)[-1] for run in self.runs))

    def to_target(self, what: str) -> list[float | None]:
        """Return for each seed the bytes (up, down, both), seconds, joules or rounds until the target.

        None if the target was not reached: nothing is extrapolated.
        """
        return [_until(run, run.reaches(self.target), what) for run in self.runs]

    def cost(self, what: str) -> float | None:
        """Return the mean of `to_target` over seeds; None if one of them does not reach it, or a run failed."""
        values = [value for value in self.to_target(what) if value is not None]
        return statistics.fmean(values) if self.runs and not self.failures and len(values) == len(self.runs) else None


def score(
    done: Sequence[CellResult], link: Link, fleet: DeviceClass, *, target: float | None, deadline: float = 0.0
) -> list[CandidateScore]:
    """Return a score for each candidate on each workload.

    `target` is an accuracy; None for 99 % of that of the reference, or else of the best candidate.
    """
    scores: list[CandidateScore] = []
    for workload in dict.fromkeys(one.cell.workload for one in done):
        here = [one for one in done if one.cell.workload == workload]
        visits = {one.cell.key: read_visits(one.folder / TRAFFIC) for one in here if one.result}
        # The codec does not affect training time: one pace for all, so that noise does not affect the ranking.
        training = measure(visit for rows in visits.values() for visit in rows).training
        rows: dict[str, list[CellResult]] = {}
        for one in here:
            rows.setdefault(one.cell.candidate.name, []).append(one)
        found: list[tuple[Candidate, tuple[CellHistory, ...], tuple[str, ...], Pace]] = []
        for group in rows.values():
            measured = [visit for one in group if one.result for visit in visits[one.cell.key]]
            pace = Pace(training, measure(measured).coding)
            runs = []
            for one in group:
                if one.result:
                    network = None if one.cell.is_app else one.cell.settings.network
                    if network and network.training_pace:  # the pace that determined its late replies
                        pace = Pace(network.training_pace, network.coding_pace)
                    rounds, seed = len(one.result["rounds"]), one.cell.seed
                    spent = clock(visits[one.cell.key], link, fleet, pace, seed=seed, deadline=deadline, rounds=rounds)
                    known = [step.joules for step in spent if step.joules is not None]
                    runs.append(_run(one, [step.seconds for step in spent], known))
            reasons = tuple(f"seed {one.cell.seed}: {one.reason}" for one in group if not one.result)
            found.append((group[0].cell.candidate, tuple(runs), reasons, pace))
        goal = target if target is not None else _goal([(candidate.name, runs) for candidate, runs, _, _ in found])
        scores += [
            CandidateScore(workload, candidate, runs, reasons, goal, pace) for candidate, runs, reasons, pace in found
        ]
    return scores


def front(scores: Sequence[CandidateScore], way: str) -> list[CandidateScore]:
    """Return the Pareto front of accuracy and bytes, fewest bytes first."""
    ranked = sorted((score for score in scores if score.runs), key=lambda s: (s.mean(way), -s.mean("final")))
    best, kept = -1.0, []
    for one in ranked:
        if one.mean("final") > best:
            best = one.mean("final")
            kept.append(one)
    return kept


def _goal(found: Sequence[tuple[str, tuple[CellHistory, ...]]]) -> float:
    finals = {name: statistics.fmean(run.final for run in runs) for name, runs in found if runs}
    if not finals:
        return 1.0
    return 0.99 * finals.get(REFERENCE, max(finals.values()))


def _run(done: CellResult, seconds: Sequence[float], joules: Sequence[float]) -> CellHistory:
    result = done.result or {}
    extensions = () if done.cell.is_app else done.cell.settings.extensions
    rows, totals = result["rounds"], result["totals"]
    joined = tuple(map(float, np.concatenate([[0.0], np.cumsum(joules)]))) if len(joules) == len(rows) else None
    every = (result["initial"], *rows)
    return CellHistory(
        seed=done.cell.seed,
        accuracy=tuple(float(row["accuracy"]) for row in every),
        up=_cumulative([row["uplink_bytes"] for row in rows]),
        down=_cumulative([row["downlink_bytes"] for row in rows]),
        seconds=tuple(map(float, np.concatenate([[0.0], np.cumsum(seconds)]))),
        joules=joined,
        loss=tuple(row.get("loss") for row in every),
        train_loss=tuple(row.get("train_loss") for row in every),
        plain_up=totals["uplink_ratio"] * totals["uplink_bytes"],
        plain_down=totals["downlink_ratio"] * totals["downlink_bytes"],
        folder=done.folder,
        measures=measures(result, extensions, last_rounds(len(rows)), done.after),
    )


def spread(values: Sequence[float]) -> float:
    """Return the standard deviation over seeds; 0 of one seed."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def last_rounds(rounds: int) -> int:
    """Return the number of last rounds that accuracy is averaged over: a tenth, since single rounds are noisy."""
    return max(1, rounds // 10)


def _cumulative(each: Sequence[int]) -> tuple[int, ...]:
    return (0, *map(int, np.cumsum(each)))


def _value(run: CellHistory, what: str) -> float:
    return run.final if what == "final" else _until(run, len(run.accuracy) - 1, what) or 0.0


def _until(run: CellHistory, number: int | None, what: str) -> float | None:
    if number is None:
        return None
    match what:
        case "rounds":
            return float(number)
        case "both":
            return float(run.up[number] + run.down[number])
        case "joules":
            return run.joules[number] if run.joules else None
        case _:
            return float(getattr(run, what)[number])
