"""Laws of the ensemble: teachers of any architecture are weighted by their statistics, one in memory at a time."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from flwr.app import MetricRecord, RecordDict
from torch import Tensor, nn

from fedpress.common.errors import DataError
from fedpress.compression.model.distill.score_matching import ScoreMatching, match_scores
from fedpress.compression.model.evaluation import scores_of
from fedpress.extensions.distillation.class_counts import read_counts
from fedpress.extensions.distillation.ensemble import Teacher, balanced, ensemble_scores
from fedpress.extensions.distillation.teacher_weights import WEIGHINGS, TeacherStatistics
from fedpress.protocol.app_config import CLASS_COUNTS

X = torch.linspace(-2, 2, 60).view(-1, 1)


class Says(nn.Module):
    """A teacher that says the same of everything."""

    def __init__(self, *chances: float) -> None:
        super().__init__()
        self.chances = torch.tensor(chances).clamp_min(1e-9)

    def forward(self, x: Tensor) -> Tensor:
        return self.chances.log().expand(len(x), -1)


def together(weighing: str, *teachers: Teacher) -> Tensor:
    return ensemble_scores(teachers, X, weighing)[0].exp()


def counts(*of: int) -> TeacherStatistics:
    return TeacherStatistics(float(sum(of)), torch.tensor(of, dtype=torch.float32))


@pytest.mark.parametrize("weighing", WEIGHINGS)
def test_one_teacher_is_its_own_ensemble(weighing: str) -> None:
    model = nn.Linear(1, 3)
    said = ensemble_scores([Teacher(model, counts(5, 5, 5))], X, weighing)
    assert torch.allclose(said, scores_of(model, X).log_softmax(-1), atol=1e-5)


@pytest.mark.parametrize("weighing", WEIGHINGS)
def test_the_order_of_teachers_does_not_matter(weighing: str) -> None:
    teachers = [Teacher(Says(0.7, 0.2, 0.1), counts(9, 1, 0)), Teacher(Says(0.1, 0.2, 0.7), counts(0, 5, 50))]
    assert torch.allclose(together(weighing, *teachers), together(weighing, *reversed(teachers)), atol=1e-6)


@pytest.mark.parametrize("weighing", WEIGHINGS)
def test_an_ensemble_s_output_is_a_distribution(weighing: str) -> None:
    teachers = [Teacher(Says(1.0, 0.0, 0.0), counts(9, 0, 0)), Teacher(Says(0.0, 1.0, 0.0), counts(0, 5, 0))]
    said = together(weighing, *teachers)
    assert torch.isfinite(said.log()).all()
    assert float(said.sum()) == pytest.approx(1)


def test_equal_is_the_mean() -> None:
    said = together(
        "equal", Teacher(Says(0.8, 0.2), TeacherStatistics(1)), Teacher(Says(0.4, 0.6), TeacherStatistics(99))
    )
    assert torch.allclose(said, torch.tensor([0.6, 0.4]), atol=1e-4)


def test_examples_weigh_as_in_fedavg() -> None:
    said = together(
        "examples", Teacher(Says(0.8, 0.2), TeacherStatistics(30)), Teacher(Says(0.4, 0.6), TeacherStatistics(10))
    )
    assert torch.allclose(said, torch.tensor([0.7, 0.3]), atol=1e-4)


@pytest.mark.parametrize("weighing", ["confidence", "entropy"])
def test_a_confident_teacher_has_a_larger_weight(weighing: str) -> None:
    sure, unsure = Teacher(Says(0.98, 0.01, 0.01)), Teacher(Says(0.3, 0.4, 0.3))
    assert together(weighing, sure, unsure)[0] > together("equal", sure, unsure)[0]


def test_a_teacher_has_no_weight_for_a_class_it_was_not_trained_on() -> None:
    knows_all = Teacher(Says(0.2, 0.2, 0.6), counts(10, 10, 10))
    knows_two = Teacher(Says(0.6, 0.4, 0.0), counts(10, 10, 0))
    said = together("classes", knows_all, knows_two)
    assert float(said[2] / said.sum()) == pytest.approx(0.6 / (0.6 + 0.4 + 0.3), abs=1e-3)
    assert together("equal", knows_all, knows_two)[2] < said[2]


def test_a_class_without_teachers_is_handled() -> None:
    said = together("classes", Teacher(Says(0.5, 0.3, 0.2), counts(4, 4, 0)))
    assert torch.isfinite(said).all()


class Moved(nn.Module):
    """A teacher that says the same as another, with something added to every class, and stretched."""

    def __init__(self, model: nn.Module, by: Tensor, stretch: float = 1.0) -> None:
        super().__init__()
        self.model, self.by, self.stretch = model, by, stretch

    def forward(self, x: Tensor) -> Tensor:
        said: Tensor = self.model(x) * self.stretch + self.by
        return said


@pytest.mark.parametrize("weighing", WEIGHINGS)
def test_a_constant_bias_of_a_teacher_is_removed(weighing: str) -> None:
    first, second = nn.Linear(1, 3), nn.Linear(1, 3)
    prior = Moved(first, torch.tensor([2.0, 0.0, -1.0]))
    plain, moved = (
        ensemble_scores([Teacher(model, counts(5, 1, 1)), Teacher(second, counts(1, 5, 1))], X, weighing, balance=True)
        for model in (first, prior)
    )
    assert torch.allclose(plain, moved, atol=1e-2)


def test_balanced_predictions_are_equally_frequent() -> None:
    said = balanced((scores_of(nn.Linear(1, 3), X) + torch.tensor([5.0, 0.0, -1.0])).log_softmax(-1))
    assert torch.allclose(said.exp().mean(0), torch.full((3,), 1 / 3), atol=1e-3)
    assert torch.allclose(balanced(said), said, atol=1e-2)


def test_a_teacher_with_constant_predictions_has_no_effect() -> None:
    said = balanced(Says(0.9, 0.1, 0.0)(X).log_softmax(-1))
    assert torch.allclose(said.exp(), torch.full((len(X), 3), 1 / 3), atol=1e-3)


@pytest.mark.parametrize("balance", [True, False])
def test_a_teacher_that_overflows_is_left_out(balance: bool) -> None:
    model, loud = nn.Linear(1, 3), Moved(nn.Linear(1, 3), torch.full((3,), torch.inf))
    alone = ensemble_scores([Teacher(model)], X, balance=balance)
    assert torch.equal(ensemble_scores([Teacher(loud), Teacher(model)], X, balance=balance), alone)
    with pytest.raises(DataError, match="finite"):
        ensemble_scores([Teacher(loud)], X, balance=balance)


def test_teachers_of_any_architecture_are_evaluated_one_at_a_time() -> None:
    made = []

    def lazily():
        for width in (4, 9, 16):
            made.append(width)
            yield Teacher(nn.Sequential(nn.Linear(1, width), nn.ReLU(), nn.Linear(width, 3)))

    said = ensemble_scores(lazily(), X)
    assert (said.shape, made) == ((60, 3), [4, 9, 16])
    assert not said.requires_grad


def test_sequences_have_a_score_at_every_step() -> None:
    model = nn.Embedding(5, 3)
    x = torch.randint(5, (20, 7), generator=torch.Generator().manual_seed(0))
    teachers = [Teacher(model, counts(1, 2, 3)), Teacher(nn.Embedding(5, 3), counts(3, 2, 1))]
    for weighing in WEIGHINGS:
        assert ensemble_scores(teachers, x, weighing).shape == (20, 7, 3)


def test_an_empty_ensemble_is_refused() -> None:
    with pytest.raises(DataError, match="at least one"):
        ensemble_scores([], X)


def test_a_student_of_another_architecture_learns_it() -> None:
    wanted = torch.stack([X[:, 0] * 4, -X[:, 0] * 4], -1)
    student = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 2))
    match_scores(student, X, wanted, ScoreMatching(steps=400, lr=0.01), np.random.default_rng(0))
    assert (scores_of(student, X).argmax(-1) == wanted.argmax(-1)).float().mean() > 0.95


def test_invalid_class_counts_are_ignored() -> None:
    def said(value) -> Tensor | None:
        content = RecordDict(
            {
                "metrics": MetricRecord(
                    {CLASS_COUNTS: list(map(float, value)) if isinstance(value, list) else value}
                    if value is not None
                    else {"a": 1}
                )
            }
        )
        return read_counts(SimpleNamespace(content=content), 3)

    assert said([1, 0, 3]).tolist() == [1, 0, 3]
    nan, inf = float("nan"), float("inf")
    for wrong in (None, 5, [0] * 3, [-1, 2, 1], [nan, 1, 1], [1, 1, nan], [inf, 1, 1], [1e308, 1, 1], [1, 2], [1] * 4):
        assert said(wrong) is None
