"""The recommended codec for a model, link and allowed loss of accuracy, with its reason and confidence."""

from collections.abc import Sequence
from dataclasses import dataclass

from fedpress.common.units import amount, duration
from fedpress.simulations.compare.scores import CandidateScore, ranked

_PARTS = {"up": "uplink", "down": "downlink", "transport": "transport"}


@dataclass(frozen=True)
class Recommendation:
    """The recommended candidate on one workload."""

    workload: str
    choice: CandidateScore | None  # None if all candidates lose more than allowed
    second: CandidateScore | None
    wins: int  # number of seeds in which the choice takes fewer bytes than the second
    seeds: int  # number of seeds in which both were run
    allowed: float  # points of accuracy that may be lost
    reason: str

    @property
    def sure(self) -> bool:
        """Whether the choice beats the second in every seed, and there is more than one."""
        return self.second is None or (self.wins == self.seeds > 1)


def advise(scores: Sequence[CandidateScore], *, allowed: float) -> list[Recommendation]:
    """Return the recommendation for each workload.

    Of the candidates that lose at most `allowed` points against float32 of the same model and step (without float32,
    against the best), and reach the target in every seed, it is the one with the fewest bytes both ways until then.
    """
    return [_advise([s for s in scores if s.workload == w], allowed) for w in dict.fromkeys(s.workload for s in scores)]


def _advise(scores: Sequence[CandidateScore], allowed: float) -> Recommendation:
    ran = [score for score in scores if score.runs]
    workload = scores[0].workload
    if not ran:
        return Recommendation(workload, None, None, 0, 0, allowed, "every run failed")
    good = [score for score in ranked(ran) if score.cost("both") is not None and score.lost <= allowed]
    if not good:
        reason = (
            f"no candidate reaches {100 * scores[0].target:.2f} % in every seed and loses {_points(allowed)} at most"
        )
        return Recommendation(workload, None, None, 0, 0, allowed, reason)
    choice, second = good[0], good[1] if len(good) > 1 else None
    wins, seeds = _wins(choice, second) if second else (0, 0)
    reason = (
        f"{_fewest_of(len(good), allowed, choice.target)}: {amount(choice.cost('both') or 0)} both ways, "
        f"{duration(choice.cost('seconds') or 0)} of simulated time; it {'loses' if choice.lost >= 0 else 'gains'} "
        f"{abs(choice.lost):.2f} points"
    )
    return Recommendation(workload, choice, second, wins, seeds, allowed, reason)


def savings(score: CandidateScore) -> str:
    """Return a sentence on the shares of a candidate's bytes until the target, and what coarser codecs could save."""
    most, *others = sorted(score.shares.items(), key=lambda item: -item[1])
    rest = ", ".join(f"{_percent(share)} {_PARTS[part]}" for part, share in others)
    up, down = (amount(score.cost(way) or 0) for way in ("up", "down"))
    return (
        f"{_percent(most[1])} of its bytes are {_PARTS[most[0]]}, {rest}: at equal rounds, a coarser down saves "
        f"at most {down}, a coarser up at most {up}."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.995 else "100 %"


def _fewest_of(count: int, allowed: float, target: float) -> str:
    if count == 1:
        return f"it is the only candidate that loses at most {_points(allowed)} and reaches {100 * target:.2f} %"
    others = f"{count} candidates that lose at most {_points(allowed)} and reach {100 * target:.2f} %"
    return f"of {others} it takes the fewest bytes"


def _points(count: float) -> str:
    return f"{count:g} point" + "s" * (count != 1)


def _wins(choice: CandidateScore, second: CandidateScore) -> tuple[int, int]:
    """Return the number of seeds in which `choice` takes fewer bytes than `second`, and of all common seeds."""
    costs = dict(zip((run.seed for run in second.runs), second.to_target("both"), strict=True))
    pairs = [
        (cost, costs[run.seed])
        for run, cost in zip(choice.runs, choice.to_target("both"), strict=True)
        if run.seed in costs
    ]
    return sum(a is not None and (b is None or a < b) for a, b in pairs), len(pairs)
