"""Laws of a student's training by its teacher."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedpress.common.errors import DataError, SettingError
from fedpress.compression.model.distill.augmentation import augment
from fedpress.compression.model.distill.loss import loss_of
from fedpress.compression.model.distill.settings import StudentSettings
from fedpress.compression.model.distill.training import train_student


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
    [{}, {"temperature": 1.0}],
    ids=["warm", "cold"],
)
def test_a_student_learns_the_teacher_s_predictions(more: dict[str, object]) -> None:
    x, one = inputs(), student()
    before = agreement(one, x)
    lesson(one, StudentSettings(epochs=30, batch_size=32, lr=0.01, alpha=1.0, **more), x)  # type: ignore[arg-type]
    assert agreement(one, x) > max(0.8, before)
    assert not one.training


def test_the_same_seed_gives_the_same_bits_and_the_teacher_does_not_change() -> None:
    settings = StudentSettings(epochs=2, batch_size=50, shift=1, flip=True, alpha=0.5)
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


def test_the_loss_is_minimal_at_the_teacher_s_scores() -> None:
    taught = torch.randn(8, 5, 3)  # of sequences too
    said = taught.clone().requires_grad_()
    loss_of(said, taught, None, 4.0, 1.0).backward()  # type: ignore[no-untyped-call]
    assert said.grad is not None
    assert float(said.grad.abs().max()) < 1e-6


def test_augmentation_shifts_and_mirrors_only() -> None:
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


def test_alpha_must_be_one_without_targets() -> None:
    with pytest.raises(SettingError, match=r"alpha must be 1 for examples without targets, got 0\.5"):
        lesson(student(), StudentSettings(alpha=0.5, epochs=1), inputs(8))


def test_augmentation_of_inputs_that_are_no_images_is_refused() -> None:
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
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, object], setting: str) -> None:
    with pytest.raises(SettingError, match=f"^{setting} must be .*, got"):
        StudentSettings(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [9, 10, 11])
def test_training_works_with_any_number_of_steps(count: int) -> None:
    lesson(student(), StudentSettings(epochs=1, batch_size=8, alpha=1.0), inputs(8 * count))


def test_a_learning_rate_that_diverges_is_refused() -> None:
    with pytest.raises(DataError, match=r"diverges at lr 1e\+30"):
        lesson(student(), StudentSettings(epochs=1, batch_size=32, alpha=1.0, lr=1e30), inputs(64))
