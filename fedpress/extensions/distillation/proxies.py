"""Sources of the inputs that a student is trained on: real or synthetic.

A proxy is a function (the round's teachers, generator) -> inputs (n, ...). Add another kind as a class.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from fedpress.common.errors import SettingError
from fedpress.extensions.distillation.collage import collage
from fedpress.extensions.distillation.dead_leaves import dead_leaves
from fedpress.extensions.distillation.ensemble import Teacher
from fedpress.extensions.distillation.invert import invert
from fedpress.extensions.distillation.settings import DistillationSettings


class Teachers(Protocol):
    """A round's teachers: iteration decodes one at a time and releases it before the next."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Teacher]: ...


Proxy = Callable[[Teachers, np.random.Generator], Tensor]

_HOW = (
    "hold some examples back with source held-out and proxy-examples, name a folder of unlabelled inputs with source "
    "folder:PATH, or have some made up with source noise or inverted"
)


@dataclass(frozen=True)
class GivenInputs:
    """Given inputs, a share of them replaced by mixtures."""

    x: Tensor  # (n, ...)
    mixed: float  # share that is replaced by mixtures

    def __call__(self, teachers: Teachers, rng: np.random.Generator) -> Tensor:
        order = generator(rng)
        count = int(len(self.x) * self.mixed)
        if not count:
            return self.x
        kept = torch.randperm(len(self.x), generator=order)[count:]
        return torch.cat([self.x[kept], collage(self.x, count, order)])


@dataclass(frozen=True)
class Noise:
    """Dead leaves, Baradad et al. 2021, https://arxiv.org/abs/2106.05963: noise with edges, as images have."""

    shape: tuple[int, ...]  # of an input
    count: int

    def __call__(self, teachers: Teachers, rng: np.random.Generator) -> Tensor:
        return dead_leaves(self.count, self.shape, generator(rng))


@dataclass(frozen=True)
class Inverted:
    """Noise that each teacher in turn optimizes towards one of its classes."""

    shape: tuple[int, ...]
    count: int
    steps: int
    device: str

    def __call__(self, teachers: Teachers, rng: np.random.Generator) -> Tensor:
        order = generator(rng)
        parts = []
        for number, teacher in enumerate(teachers):
            share = self.count * (number + 1) // len(teachers) - self.count * number // len(teachers)
            start = dead_leaves(share, self.shape, order)
            parts.append(invert(teacher, start, self.steps, order, self.device))
        return torch.cat(parts)


def proxy_of(x: Tensor, settings: DistillationSettings, device: str) -> Proxy:
    """Return the proxy that `settings` describe; `x` (n, ...) are the given inputs, whose shape it takes.

    Raises
    ------
    SettingError
        If there are too few inputs to train on, or inputs of this type cannot be generated.
    """
    shape, count = tuple(x.shape[1:]), settings.proxy_examples
    if settings.source in ("noise", "inverted"):
        if not x.dtype.is_floating_point:
            raise SettingError(f"inputs must be real numbers with source {settings.source}, got {x.dtype}: {_HOW}")
        if settings.source == "noise":
            return Noise(shape, count)
        return Inverted(shape, count, settings.inversion_steps, device)
    if len(x) < 2:
        raise SettingError(f"distillation needs a proxy, at least two inputs to train on, got {len(x)}: {_HOW}")
    if settings.mixed and not x.dtype.is_floating_point:
        raise SettingError(f"mixed must be 0 for inputs that are not real numbers, got {settings.mixed} for {x.dtype}")
    return GivenInputs(x, settings.mixed)


def generator(rng: np.random.Generator) -> torch.Generator:
    """Return a torch generator seeded from numpy's."""
    return torch.Generator().manual_seed(int(rng.integers(2**63)))
