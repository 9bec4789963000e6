"""A student learns what its teacher says, in each of the ways that there are."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedpress.common.errors import DataError, SettingError
from fedpress.compression.model.distill.augmentation import augment
from fedpress.compression.model.distill.fitnets import Hint
from fedpress.compression.model.distill.loss import loss_of
from fedpress.compression.model.distill.settings import StudentSettings
from fedpress.compression.model.distill.training import train_student
from fedpress.compression.model.distill.warm_start import warm_start


def teacher() -> nn.Module:
    """A fixed rule on pictures of 4 x 4."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(96, 3)).eval()


def student(seed: int = 2) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 4, 3, 2, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))


def inputs(count: int = 256) -> Tensor:
    return torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def lesson(one: nn.Module, settings: StudentSettings, x: Tensor, y: Tensor | None = None) -> list[str]:
    said: list[str] = []
    train_student(one, teacher(), x, y, settings, np.random.default_rng(0), progress=said.append)
    return said


def agreement(one: nn.Module, x: Tensor) -> float:
    return float((one.eval()(x).argmax(-1) == teacher()(x).argmax(-1)).float().mean())


@pytest.mark.parametrize(
    "more",
    [{}, {"hint": "0:0"}, {"temperature": 1.0}],
    ids=["plain", "hint", "cold"],
)
def test_it_comes_to_answer_as_the_teacher_does(more: dict[str, object]) -> None:
    x, one = inputs(), student()
    before = agreement(one, x)
    lesson(one, StudentSettings(epochs=30, batch_size=32, lr=0.01, alpha=1.0, **more), x)  # type: ignore[arg-type]
    assert agreement(one, x) > max(0.8, before)
    assert not one.training


def test_the_same_seed_gives_the_same_bits_and_the_teacher_is_left_alone() -> None:
    settings = StudentSettings(epochs=2, batch_size=50, shift=1, flip=True, hint="0:0", alpha=0.5)
    ones, kept = [student(), student()], teacher()
    before = {name: tensor.clone() for name, tensor in kept.state_dict().items()}
    x = inputs()
    y = kept(x).argmax(-1)
    for one in ones:
        torch.rand(3)  # whatever else was drawn
        train_student(one, kept, x, y, settings, np.random.default_rng(5), progress=lambda _: None)
    for left, right in zip(ones[0].state_dict().values(), ones[1].state_dict().values(), strict=True):
        assert torch.equal(left, right)
    assert all(torch.equal(before[name], tensor) for name, tensor in kept.state_dict().items())


def test_without_a_teacher_s_weight_targets_alone_count() -> None:
    said, targets = torch.randn(8, 3), torch.randint(3, (8,))
    plain = nn.functional.cross_entropy(said, targets)
    assert torch.allclose(loss_of(said, None, targets, 4.0, 0.0), plain)
    assert torch.allclose(loss_of(said, torch.randn(8, 3), targets, 4.0, 0.0), plain)


def test_the_loss_is_least_where_the_answers_are_the_teacher_s() -> None:
    taught = torch.randn(8, 5, 3)  # of sequences too
    said = taught.clone().requires_grad_()
    loss_of(said, taught, None, 4.0, 1.0).backward()  # type: ignore[no-untyped-call]
    assert said.grad is not None
    assert float(said.grad.abs().max()) < 1e-6


def test_a_warm_start_takes_what_fits() -> None:
    kept, one = teacher(), nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 3))
    assert warm_start(one, kept) == ["0.weight", "0.bias", "3.bias"]
    assert torch.equal(one[0].weight, kept[0].weight)  # type: ignore[index]


def test_a_hint_s_regressor_is_no_part_of_the_student() -> None:
    one = student()
    hint = Hint(teacher(), one, "0:0", inputs(2))
    assert [name for name, _ in hint.named_parameters()] == ["regressor.weight", "regressor.bias"]
    assert hint.regressor.weight.shape[:2] == (6, 4)
    hint(inputs(8)).backward()
    assert one[0].weight.grad is not None  # type: ignore[index]
    assert one[4].weight.grad is None  # type: ignore[index]  # behind the guided layer


def test_pictures_are_moved_and_nothing_else() -> None:
    x, rng = inputs(50), torch.Generator().manual_seed(0)
    assert torch.equal(augment(x, 0, False, rng), x)
    shifted = augment(x, 1, False, rng)
    assert shifted.shape == x.shape
    for before, after in zip(x, shifted, strict=True):
        padded = nn.functional.pad(before, (1, 1, 1, 1))
        assert any(torch.equal(padded[:, i : i + 4, j : j + 4], after) for i in range(3) for j in range(3))
    mirrored = augment(x, 0, True, rng)
    kinds = [torch.equal(after, before) for before, after in zip(x, mirrored, strict=True)]
    assert 0 < sum(kinds) < 50
    assert all(
        same or torch.equal(after, x[i].flip(2)) for i, (same, after) in enumerate(zip(kinds, mirrored, strict=True))
    )


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"hint": "9:0"}, "unknown layer of the teacher '9'"),
        ({"hint": "0:9"}, "unknown layer of the student '9'"),
        ({"hint": "0:4"}, "must be images, or both vectors"),
        ({"alpha": 0.5}, "alpha must be 1 for examples without targets, got 0.5"),
    ],
)
def test_what_does_not_suit_is_said(more: dict[str, object], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        lesson(student(), StudentSettings(**{"alpha": 1.0, "epochs": 1, **more}), inputs(8))  # type: ignore[arg-type]


def test_rows_of_numbers_are_not_moved() -> None:
    model = nn.Linear(4, 3)
    with pytest.raises(SettingError, match=r"got inputs of shape \(4,\)"):
        train_student(
            model, model, torch.rand(8, 4), None, StudentSettings(alpha=1.0, flip=True), np.random.default_rng(0)
        )


def test_other_classes_and_no_examples_are_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(DataError, match="3 classes, got 5"):
        train_student(nn.Linear(4, 5), nn.Linear(4, 3), torch.rand(8, 4), None, StudentSettings(alpha=1.0), rng)
    with pytest.raises(DataError, match="must not be empty"):
        train_student(nn.Linear(4, 3), nn.Linear(4, 3), torch.rand(0, 4), None, StudentSettings(alpha=1.0), rng)


@pytest.mark.parametrize(
    ("wrong", "setting"),
    [
        ({"epochs": 0}, "epochs"),
        ({"alpha": 1.5}, "alpha"),
        ({"temperature": 0.0}, "temperature"),
        ({"hint": "conv"}, "hint"),
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, object], setting: str) -> None:
    with pytest.raises(SettingError, match=f"^{setting} must be .*, got"):
        StudentSettings(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [9, 10, 11])
def test_any_number_of_steps_will_do(count: int) -> None:
    lesson(student(), StudentSettings(epochs=1, batch_size=8, alpha=1.0), inputs(8 * count))


@pytest.mark.parametrize("more", [{}, {"hint": "0:0"}])
def test_a_rate_that_no_number_outlives_is_refused(more: dict[str, object]) -> None:
    with pytest.raises(DataError, match=r"diverges at lr 1e\+30"):
        lesson(student(), StudentSettings(epochs=1, batch_size=32, alpha=1.0, lr=1e30, **more), inputs(64))  # type: ignore[arg-type]


class Aside(nn.Module):
    """It has a layer that gives a tuple, and one that nothing passes."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.idle, self.out = nn.GRU(4, 4, batch_first=True), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.out(self.gru(x)[0])
        return scores


@pytest.mark.parametrize(
    ("hint", "said"),
    [
        ("gru:out", "give one tensor: 'gru' of the teacher gives a tuple"),
        ("out:idle", "give one tensor: 'idle' of the student is passed by no input"),
    ],
)
def test_a_hint_is_of_layers_that_give_one_tensor(hint: str, said: str) -> None:
    with pytest.raises(SettingError, match=said):
        train_student(
            Aside(), Aside(), torch.rand(8, 5, 4), None, StudentSettings(alpha=1.0, hint=hint), np.random.default_rng(0)
        )
