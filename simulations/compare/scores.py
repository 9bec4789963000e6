"""Scores of runs: accuracy, bytes, seconds and joules until a target, with means and spreads over seeds."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from fedpress.server.run.recorder import TRAFFIC
from fedpress.simulations.compare.candidates import Candidate
from fedpress.simulations.compare.executor import CellResult
from fedpress.simulations.compare.measures import measures
from fedpress.simulations.network.clock import Pace, clock, measure, read_visits
from fedpress.simulations.network.devices import DeviceClass
from fedpress.simulations.network.links import Link

PARTS = ("up", "down", "transport")  # of the bytes both ways: frames in each direction, and the rest of messages


@dataclass(frozen=True)
class CellHistory:
    """One finished cell, round by round; round 0 is the initial model, without a cost."""

    seed: int
    accuracy: tuple[float, ...]
    up: tuple[int, ...]  # cumulative bytes of frames
    down: tuple[int, ...]
    transport: tuple[int, ...]  # cumulative bytes of messages, without their frames
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
    float32: float  # mean accuracy of float32 with the same step; with the default one, or the best, if there is none

    @property
    def name(self) -> str:
        """The candidate's name."""
        return self.candidate.name

    def mean(self, what: str) -> float:
        """Return the mean over seeds of `final`, or of a total: up, down, transport, both, seconds."""
        return statistics.fmean(_value(run, what) for run in self.runs)

    def spread(self, what: str) -> float:
        """Return the standard deviation over seeds of the same; 0 of one seed."""
        return spread([_value(run, what) for run in self.runs])

    @property
    def measures(self) -> dict[str, tuple[float, ...]]:
        """The values of each optional measure that all runs have."""
        names = [name for name in self.runs[0].measures if all(name in run.measures for run in self.runs)]
        return {name: tuple(run.measures[name] for run in self.runs) for name in names}

    @property
    def lost(self) -> float:
        """Points of accuracy that it loses against float32."""
        return 100 * (self.float32 - self.mean("final"))

    def ratio(self, way: str) -> float:
        """Return the compression ratio of frames against float32, `up`, `down` or `both` ways."""
        ways = ("up", "down") if way == "both" else (way,)
        plain = sum(run.plain_up if one == "up" else run.plain_down for run in self.runs for one in ways)
        return plain / max(1, sum((run.up if one == "up" else run.down)[-1] for run in self.runs for one in ways))

    @property
    def shares(self) -> dict[str, float]:
        """Shares of `PARTS` in its bytes until the target, or in all bytes where that is not reached."""
        sizes = {part: self.cost(part) for part in PARTS}
        known = {part: self.mean(part) if size is None else size for part, size in sizes.items()}
        return {part: size / max(1.0, sum(known.values())) for part, size in known.items()}

    def to_target(self, what: str) -> list[float | None]:
        """Return for each seed the bytes (up, down, transport, both), seconds, joules or rounds until the target.

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

    `target` is an accuracy; None for 99 % of that of float32 with the default step, or else of the best candidate.
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
        plain = _Float32.of([(candidate, runs) for candidate, runs, _, _ in found])
        goal = target if target is not None else 0.99 * plain.default
        scores += ranked(
            CandidateScore(workload, candidate, runs, reasons, goal, pace, plain.beside(candidate))
            for candidate, runs, reasons, pace in found
        )
    return scores


def ranked(scores: Iterable[CandidateScore]) -> list[CandidateScore]:
    """Return scores by total bytes until the target; those that miss it by accuracy; then those that failed."""

    def rank(score: CandidateScore) -> tuple[bool, bool, float]:
        cost = score.cost("both")
        missed = -score.mean("final") if score.runs else 0.0
        return not score.runs, cost is None, missed if cost is None else cost

    return sorted(scores, key=rank)


def front(scores: Sequence[CandidateScore], way: str) -> list[CandidateScore]:
    """Return the Pareto front of accuracy and bytes, fewest bytes first."""
    ranked = sorted((score for score in scores if score.runs), key=lambda s: (s.mean(way), -s.mean("final")))
    best, kept = -1.0, []
    for one in ranked:
        if one.mean("final") > best:
            best = one.mean("final")
            kept.append(one)
    return kept


@dataclass(frozen=True)
class _Float32:
    """Mean accuracies of float32 on one workload, each with its server step and local work."""

    default: float  # of the default step; without such a run, of the best candidate
    steps: Sequence[tuple[Mapping[str, object], float]]

    @classmethod
    def of(cls, found: Sequence[tuple[Candidate, tuple[CellHistory, ...]]]) -> "_Float32":
        finals = [(candidate, statistics.fmean(run.final for run in runs)) for candidate, runs in found if runs]
        steps = [(candidate.step, final) for candidate, final in finals if candidate.is_float32]
        default = next((final for step, final in steps if not step), None)
        return cls(max((final for _, final in finals), default=1.0) if default is None else default, steps)

    def beside(self, candidate: Candidate) -> float:
        """Return the accuracy of float32 with the step of `candidate`."""
        return next((final for step, final in self.steps if step == candidate.step), self.default)


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
        transport=_cumulative([_transport(row) for row in rows]),
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


def _transport(row: Mapping[str, int]) -> int:
    return sum(row[f"{way}_message_bytes"] - row[f"{way}_bytes"] for way in ("uplink", "downlink"))


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
            return float(sum(getattr(run, part)[number] for part in PARTS))
        case "joules":
            return run.joules[number] if run.joules else None
        case _:
            return float(getattr(run, what)[number])
