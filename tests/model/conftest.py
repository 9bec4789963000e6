"""Models of every kind of graph, with inputs that suit them."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from fedpress.compression.model.evaluation import Batches, batches_of
from fedpress.simulations.workloads import models


class Grouped(nn.Module):
    """A grouped and a depthwise convolution, with batch norms."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.grouped = nn.Conv2d(16, 32, 3, groups=4)
        self.depthwise = nn.Conv2d(32, 32, 3, groups=32)
        self.last = nn.Conv2d(32, 8, 1)
        self.head = nn.Linear(8 * 2 * 2, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x)).relu()
        x = self.last(self.depthwise(self.grouped(x).relu()).relu()).relu()
        scores: Tensor = self.head(nn.functional.max_pool2d(x, 2).flatten(1))
        return scores


class Residual(nn.Module):
    """Two joins that share their channels, one with a separate shortcut, and a batch norm on every way."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU())
        self.one, self.two = self._body(6, 6), self._body(6, 8)
        self.shortcut = nn.Conv2d(6, 8, 1, bias=False)
        self.head = nn.Linear(8, 10)

    def _body(self, inputs: int, outputs: int) -> nn.Sequential:
        parts = nn.Conv2d(inputs, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5), nn.ReLU()
        return nn.Sequential(*parts, nn.Conv2d(5, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = (x + self.one(x)).relu()
        x = (self.shortcut(x) + self.two(x)).relu()
        scores: Tensor = self.head(x.mean((2, 3)))
        return scores


class Joined(nn.Module):
    """Two convolutions side by side, whose outputs the next one sees one behind the other."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(1, 4, 3), nn.Conv2d(1, 6, 3)
        self.next = nn.Conv2d(10, 4, 3)
        self.head = nn.Linear(4 * 4 * 4, 10)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.cat([self.left(x), self.right(x)], 1).relu()
        scores: Tensor = self.head(self.next(both).relu().flatten(1))
        return scores


class Squeezed(nn.Module):
    """Channels that are weighed by what is seen of all of them: squeeze and excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.next, self.head = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 6, 3), nn.Linear(6, 10)
        self.squeeze, self.excite = nn.Linear(8, 4), nn.Linear(4, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        weights = self.excite(self.squeeze(x.mean((2, 3))).relu()).sigmoid()
        scores: Tensor = self.head(self.next(x * weights[:, :, None, None]).relu().mean((2, 3)))
        return scores


class Twice(nn.Module):
    """A layer that is passed twice: what comes out of it goes into it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again, self.head = nn.Linear(64, 12), nn.Linear(12, 12), nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x.flatten(1)).relu()
        scores: Tensor = self.head(self.again(self.again(x).relu()).relu())
        return scores


class Shuffled(nn.Module):
    """Channels that change places between two grouped convolutions, which the graph does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.grouped = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3, groups=2)
        self.next, self.head = nn.Conv2d(8, 8, 1, groups=2), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.grouped(self.first(x).relu()).unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)
        scores: Tensor = self.head(self.next(x).relu().mean((2, 3)))
        return scores


class Scaled(nn.Module):
    """Channels that are multiplied with a parameter of no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(64, 12), nn.Linear(12, 10)
        self.scale = nn.Parameter(torch.ones(12))

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head((self.first(x.flatten(1)) * self.scale).relu())
        return scores


class Mixing(nn.Module):
    """Channels that a softmax mixes: without one of them the others are not what they were."""

    def __init__(self) -> None:
        super().__init__()
        self.mixed, self.plain, self.head = nn.Linear(64, 12), nn.Linear(12, 8), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.plain(self.mixed(x.flatten(1)).softmax(-1)).relu())
        return scores


@dataclass(frozen=True)
class Case:
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]  # of an example
    groups: int  # of channels that can be removed


IMAGE, SMALL, WINDOW = (1, 28, 28), (1, 8, 8), (6, 100)
CASES = {
    "mlp": Case(lambda: models.mlp(0.0), SMALL, 1),
    "cnn": Case(lambda: models.cnn(0.1), IMAGE, 3),
    "lenet": Case(lambda: models.lenet(0.0), IMAGE, 4),
    "cnn1d": Case(lambda: models.cnn1d(0.0), WINDOW, 3),
    "grouped": Case(Grouped, SMALL, 3),
    "residual": Case(Residual, SMALL, 4),
    "joined": Case(Joined, SMALL, 3),
    "squeezed": Case(Squeezed, SMALL, 3),
    "twice": Case(Twice, SMALL, 1),
    "mcmahan": Case(lambda: models.mcmahan(0.0), IMAGE, 3),
    "resnet18": Case(lambda: models.resnet18(0.0), IMAGE, 12),
}


def made(case: Case) -> tuple[nn.Module, Tensor]:
    """A model whose batch norms have seen something, and a few inputs; the same each time."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model, x = case.make(), torch.randn(8, *case.shape)
        model.train()
        with torch.no_grad():
            for _ in range(3):
                model(x)
            for norm in model.modules():
                if isinstance(norm, nn.BatchNorm2d):
                    nn.init.normal_(norm.weight)
                    nn.init.normal_(norm.bias)
    return model.eval(), x


def examples(x: Tensor) -> Batches:
    return batches_of(x, torch.arange(len(x)) % 7)


@pytest.fixture(params=[name for name in CASES if name not in ("mcmahan", "resnet18")])
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]
