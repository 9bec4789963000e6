"""The recommended codec for a model, link and allowed loss of accuracy, with its reason and confidence."""

from collections.abc import Sequence
from dataclasses import dataclass

from fedpress.common.units import amount, duration
from fedpress.simulations.compare.candidates import REFERENCE
from fedpress.simulations.compare.scores import CandidateScore


@dataclass(frozen=True)
class Recommendation:
    """The recommended candidate on one workload."""

    workload: str
    choice: CandidateScore | None  # None if all candidates lose more than allowed
    second: CandidateScore | None
    wins: int  # number of seeds in which the choice is faster than the second
    seeds: int  # number of seeds in which both were run
    allowed: float  # points of accuracy that may be lost
    best: float  # the accuracy that losses are relative to
    reason: str

    @property
    def sure(self) -> bool:
        """Whether the choice beats the second in every seed, and there is more than one."""
        return self.second is None or (self.wins == self.seeds > 1)


def advise(scores: Sequence[CandidateScore], *, allowed: float) -> list[Recommendation]:
    """Return the recommendation for each workload.

    Of the candidates that lose at most `allowed` points against float32 (or the best, if float32 was not run) and
    reach the target in every seed, it is the one that reaches it first on the link; ties are broken by total bytes.
    """
    return [_advise([s for s in scores if s.workload == w], allowed) for w in dict.fromkeys(s.workload for s in scores)]


def _advise(scores: Sequence[CandidateScore], allowed: float) -> Recommendation:
    ran = [score for score in scores if score.runs]
    workload = scores[0].workload
    if not ran:
        return Recommendation(workload, None, None, 0, 0, allowed, 0.0, "every run failed")
    plain = next((score for score in ran if score.name == REFERENCE), None)
    best = plain.mean("final") if plain else max(score.mean("final") for score in ran)
    good = [s for s in ran if s.cost("seconds") is not None and 100 * (best - s.mean("final")) <= allowed]
    if not good:
        reason = (
            f"no candidate reaches {100 * scores[0].target:.2f} % in every seed and loses {_points(allowed)} at most"
        )
        return Recommendation(workload, None, None, 0, 0, allowed, best, reason)
    ranked = sorted(good, key=lambda s: (round(s.cost("seconds") or 0.0, 3), s.cost("both") or 0.0))
    choice, second = ranked[0], ranked[1] if len(ranked) > 1 else None
    wins, seeds = _wins(choice, second) if second else (0, 0)
    lost = 100 * (best - choice.mean("final"))
    reason = (
        f"{_first_of(len(good), allowed)} "
        f"{100 * choice.target:.2f} %, after {duration(choice.cost('seconds') or 0)} of simulated time and "
        f"{amount(choice.cost('both') or 0)} both ways; "
        + (f"it loses {lost:.2f} points" if lost >= 0 else f"it gains {-lost:.2f} points")
    )
    return Recommendation(workload, choice, second, wins, seeds, allowed, best, reason)


def _first_of(count: int, allowed: float) -> str:
    if count == 1:
        return f"it is the only candidate that loses at most {_points(allowed)}, and reaches"
    return f"of {count} candidates that lose at most {_points(allowed)} it is the first to reach"


def _points(count: float) -> str:
    return f"{count:g} point" + "s" * (count != 1)


def _wins(choice: CandidateScore, second: CandidateScore) -> tuple[int, int]:
    """Return the number of seeds in which `choice` reaches the target before `second`, and of all common seeds."""
    times = dict(zip((run.seed for run in second.runs), second.to_target("seconds"), strict=True))
    pairs = [
        (time, times[run.seed])
        for run, time in zip(choice.runs, choice.to_target("seconds"), strict=True)
        if run.seed in times
    ]
    return sum(a is not None and (b is None or a < b) for a, b in pairs), len(pairs)
