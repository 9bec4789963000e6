"""Dead leaves: shapes over shapes, Baradad et al. 2021, https://arxiv.org/abs/2106.05963, with nothing learnt."""

import math

import torch
from torch import Tensor

_LAYERS = 6  # shapes over one another, at most


def dead_leaves(count: int, shape: tuple[int, ...], order: torch.Generator) -> Tensor:
    """Return `count` inputs of `shape`: of pictures, (channels, height, width), in [0, 1]; else noise about 0.

    Of anything but pictures nothing is known, so it is Gaussian noise, each input of a spread of its own.
    """
    if len(shape) != 3:
        spread = torch.rand((count,) + (1,) * len(shape), generator=order) * 2
        return torch.randn((count, *shape), generator=order) * spread
    channels, height, width = shape
    pictures = _draw(count * channels, height, width, order)
    return pictures.view(count, channels, height, width).contiguous()


def _draw(count: int, height: int, width: int, order: torch.Generator) -> Tensor:
    """Return `count` grey pictures, (count, height, width)."""

    def rand() -> Tensor:
        return torch.rand(count, 1, 1, generator=order)

    y = torch.linspace(-1, 1, height)[:, None]
    x = torch.linspace(-1, 1, width)[None, :]
    picture = (rand() * (rand() < 0.5)).expand(count, height, width).clone()
    layers = (rand() * _LAYERS).long() + 1
    for layer in range(_LAYERS):
        across, down, turn = rand() * 1.6 - 0.8, rand() * 1.6 - 0.8, rand() * 2 * math.pi
        wide, high = 0.08 + 0.8 * rand() ** 1.5, 0.08 + 0.8 * rand() ** 1.5
        u = ((x - across) * turn.cos() + (y - down) * turn.sin()) / wide
        v = ((y - down) * turn.cos() - (x - across) * turn.sin()) / high
        far = torch.where(rand() < 0.5, u.abs().maximum(v.abs()), (u * u + v * v).sqrt())
        covers = (far < 1) & (layer < layers)
        fine, phase, way = 2 + 14 * rand(), rand() * 2 * math.pi, rand() * 2 * math.pi
        stripes = 0.5 * (fine * (x * way.cos() + y * way.sin()) + phase).sin() * (rand() < 0.4) * rand()
        grain = 0.25 * torch.randn(count, height, width, generator=order) * (rand() < 0.5) * rand()
        picture = torch.where(covers, rand() + stripes + grain, picture)
    return picture.clamp_(0, 1)
