"""Laws of what runs are judged by: nothing is extrapolated, the front is not beaten, advice says how sure it is."""

from pathlib import Path

import pytest

from fedpress.simulations.compare.candidates import Candidate, with_float32
from fedpress.simulations.compare.plots import draw
from fedpress.simulations.compare.recommendation import advise, savings
from fedpress.simulations.compare.scores import PARTS, CandidateScore, CellHistory, front, ranked
from fedpress.simulations.network.clock import Pace


def make_run(seed: int, accuracy: list[float], each: int, seconds: float = 1.0) -> CellHistory:
    rounds = range(len(accuracy))
    bytes_by_then = tuple(each * number for number in rounds)
    return CellHistory(
        seed=seed,
        accuracy=tuple(accuracy),
        up=bytes_by_then,
        down=tuple(2 * size for size in bytes_by_then),
        transport=tuple(5 * number for number in rounds),
        seconds=tuple(seconds * number for number in rounds),
        joules=None,
        loss=tuple(None for _ in rounds),
        train_loss=tuple(None for _ in rounds),
        plain_up=1000.0 * len(rounds),
        plain_down=2000.0 * len(rounds),
        folder=Path(),
    )


def make_score(
    name: str, runs: list[CellHistory], target: float = 0.8, failures: tuple[str, ...] = (), float32: float = 0.9
) -> CandidateScore:
    candidate = Candidate(name, name, "none")
    return CandidateScore("work", candidate, tuple(runs), failures, target, Pace(0.0, 0.0), float32)


RISING = [0.1, 0.5, 0.7, 0.8, 0.9]
LATE = [0.1, 0.2, 0.4, 0.7, 0.85]
NEVER = [0.1, 0.2, 0.3, 0.4, 0.79]


def test_costs_are_those_of_the_round_that_reached_the_target() -> None:
    score = make_score("a", [make_run(0, RISING, 10), make_run(1, LATE, 10)])
    assert score.to_target("rounds") == [3.0, 4.0]
    assert score.to_target("up") == [30.0, 40.0]
    assert score.to_target("transport") == [15.0, 20.0]
    assert score.to_target("both") == [105.0, 140.0]
    assert score.cost("both") == 122.5
    assert score.cost("both") == sum(score.cost(part) or 0 for part in PARTS)


def test_a_target_that_one_seed_does_not_reach_is_not_reached() -> None:
    score = make_score("a", [make_run(0, RISING, 10), make_run(1, NEVER, 10)])
    assert score.to_target("both") == [105.0, None]
    assert score.cost("both") is None
    assert make_score("b", [make_run(0, RISING, 10)], failures=("seed 1: lost",)).cost("both") is None


def test_the_start_is_no_result() -> None:
    assert make_run(0, [0.9, 0.1, 0.2], 1).reaches(0.8) is None


def test_single_rounds_do_not_reach_a_target() -> None:
    """Accuracy swings: with forty rounds it is a mean over four that counts."""
    run = make_run(0, [0.1] * 20 + [0.95] + [0.1] * 20, 1)
    assert run.last == 4
    assert run.reaches(0.9) is None


def test_nobody_on_the_front_is_beaten() -> None:
    scores = [
        make_score(name, [make_run(0, [0.1, final], size)])
        for name, final, size in (("a", 0.9, 100), ("b", 0.8, 10), ("c", 0.8, 50), ("d", 0.7, 5), ("e", 0.9, 200))
    ]
    for way in ("up", "both"):
        assert [score.name for score in front(scores, way)] == ["d", "b", "a"]


def test_candidates_are_ranked_by_all_bytes_until_the_target() -> None:
    few = make_score("few", [make_run(0, LATE, 10)])
    many = make_score("many", [make_run(0, RISING, 20)])
    near, far = make_score("near", [make_run(0, NEVER, 1)]), make_score("far", [make_run(0, [0.1, 0.2], 1)])
    failed = make_score("failed", [], failures=("seed 0: no data",))
    assert few.mean("both") < many.mean("both")
    assert ranked([failed, far, near, many, few]) == [few, many, near, far, failed]


def test_shares_add_up_and_no_change_of_one_side_saves_more_than_that_side() -> None:
    for score in (make_score("a", [make_run(0, RISING, 100)]), make_score("b", [make_run(0, NEVER, 100)])):
        assert sum(score.shares.values()) == pytest.approx(1)
        assert score.shares["down"] == pytest.approx(2 * score.shares["up"])
        assert score.shares["transport"] == pytest.approx(5 / 305)
    said = savings(make_score("a", [make_run(0, RISING, 100)]))
    assert said.index("66 %") < said.index("33 %") < said.index("1.6 %")
    assert "down saves at most 600 B" in said
    assert "up at most 300 B" in said


def test_losses_are_against_float32_of_the_same_step() -> None:
    momentum = {"strategy.server-momentum": 0.5}
    given = [
        Candidate("none", "none", "none"),
        Candidate("a", "fp16", "none"),
        Candidate("b", "fp16", "none", momentum),
        Candidate("c", "bf16", "none", {**momentum, "training.subspace": 0.1}),
        Candidate("d", "fp16", "none", {"training.local-epochs": 5}, (("shrink", "--prune", "0.5"),)),
    ]
    given.append(Candidate("app", "none", "none", {"simulation.apps": "own", "training.lr": 5.0}))
    completed = with_float32(given)
    assert completed[: len(given)] == given
    assert [(one.up, one.down, dict(one.settings), one.after) for one in completed[len(given) :]] == [
        ("none", "none", momentum, ()),
        ("none", "none", {"training.local-epochs": 5}, ()),
    ]
    assert with_float32(completed) == completed
    assert with_float32(given[1:]) == given[1:]
    for codec in given[1:-1]:
        assert [one.step for one in completed if one.is_float32].count(codec.step) == 1


def test_the_advice_takes_the_fewest_bytes_and_says_how_sure_it_is() -> None:
    plain = make_score("none", [make_run(seed, RISING, 1000, 0.1) for seed in range(3)])
    small = make_score("small", [make_run(seed, RISING, 20, 1.0) for seed in range(3)])
    coarse = make_score("coarse", [make_run(seed, [0.1, 0.8, 0.8, 0.8, 0.8], 1, 9.0) for seed in range(3)])
    mixed = make_score("mixed", [make_run(seed, RISING, 15 if seed else 40, 0.1) for seed in range(3)])
    (advice,) = advise([plain, small, coarse], allowed=1.0)
    assert advice.choice is small
    assert (advice.wins, advice.seeds, advice.sure) == (3, 3, True)
    (advice,) = advise([plain, small, coarse], allowed=50.0)
    assert advice.choice is coarse
    (advice,) = advise([plain, small, mixed], allowed=1.0)
    assert advice.choice is small
    assert (advice.wins, advice.sure) == (1, False)


def test_there_is_no_advice_where_there_is_nothing_to_advise() -> None:
    (advice,) = advise([make_score("a", [make_run(0, NEVER, 1)])], allowed=1.0)
    assert advice.choice is None
    assert "80.00 %" in advice.reason
    (advice,) = advise([make_score("a", [], failures=("seed 0: no data",))], allowed=1.0)
    assert advice.choice is None


@pytest.mark.parametrize("count", [1, 3, 30])
def test_any_number_of_candidates_can_be_drawn(count: int) -> None:
    scores = [
        make_score(f"codec {n} <&>", [make_run(0, RISING, 3 + n), make_run(1, LATE, 3 + n)]) for n in range(count)
    ]
    scores.append(make_score("failed", [], failures=("seed 0: no data",)))
    scores.append(make_score("late", [make_run(0, NEVER, 5)]))
    drawings = draw(scores, link="4g")
    assert len(drawings) == 4
