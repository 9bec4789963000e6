"""Laws of made-up inputs: of the right shape and range, the same for the same generator, and what a teacher takes
for its classes once they are inverted."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedpress.common.errors import SettingError
from fedpress.compression.model.evaluation import scores_of
from fedpress.extensions.distillation.ensemble import Teacher
from fedpress.extensions.distillation.proxies import proxy_of
from fedpress.extensions.distillation.settings import DistillationSettings
from fedpress.extensions.distillation.teacher_weights import TeacherStatistics

PICTURES = torch.rand(40, 1, 12, 12, generator=torch.Generator().manual_seed(0))
SHAPES = [(1, 12, 12), (3, 8, 10), (6, 30), (5,)]


def make(x: Tensor, teachers: list[Teacher] | None = None, seed: int = 0, **settings) -> Tensor:
    return proxy_of(x, DistillationSettings(**settings), "cpu")(teachers or [], np.random.default_rng(seed))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_noise_looks_like_the_inputs(shape: tuple[int, ...]) -> None:
    x = make(torch.zeros(0, *shape), source="noise", proxy_examples=50)
    assert (x.shape, x.dtype) == ((50, *shape), torch.float32)
    assert torch.isfinite(x).all()
    assert x.flatten(1).unique(dim=0).shape[0] == 50
    if len(shape) == 3:
        assert (x.min() >= 0, x.max() <= 1) == (True, True)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_mixtures_take_the_place_of_a_share(shape: tuple[int, ...]) -> None:
    given = torch.rand(40, *shape, generator=torch.Generator().manual_seed(0))
    x = make(given, mixed=0.75)
    assert x.shape == given.shape
    known = {row.numpy().tobytes() for row in given}
    assert sum(row.numpy().tobytes() in known for row in x) == 10
    assert (x.min() >= given.min(), x.max() <= given.max()) == (True, True)
    assert make(given) is given


@pytest.mark.parametrize("settings", [{"source": "noise"}, {"mixed": 0.5}], ids=str)
def test_the_same_generator_makes_the_same(settings: dict) -> None:
    first, again, other = (make(PICTURES, seed=seed, **settings).numpy().tobytes() for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize("norm", [nn.Identity(), nn.BatchNorm2d(4)], ids=["plain", "batch norm"])
def test_inverted_inputs_are_what_the_teacher_takes_for_its_classes(norm: nn.Module) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(400, 3))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    teacher = Teacher(model, TeacherStatistics(20, torch.tensor([10.0, 0.0, 10.0])))
    x = make(PICTURES[:0], [teacher, teacher], source="inverted", proxy_examples=61, inversion_steps=60)
    assert x.shape == (61, 1, 12, 12)
    assert (x.min() >= 0, x.max() <= 1) == (True, True)
    said = scores_of(model, x).argmax(-1).bincount(minlength=3)
    assert said[1] <= 3, "a class that the teacher never saw"
    assert min(said[0], said[2]) > 10
    assert all((tensor == before[name]).all() for name, tensor in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("source", ["noise", "inverted"])
def test_no_inputs_are_generated_for_texts(source: str) -> None:
    with pytest.raises(SettingError, match=r"real numbers.*int64.*folder:PATH"):
        make(torch.zeros(0, 80, dtype=torch.int64), source=source)
    with pytest.raises(SettingError, match="mixed"):
        make(torch.zeros(5, 80, dtype=torch.int64), mixed=0.5)
