"""Mixtures of inputs: mixup, Zhang et al. 2018, https://arxiv.org/abs/1710.09412; pictures are turned and scaled."""

import math

import torch
from torch import Tensor
from torch.nn import functional

_ZOOM = (0.4, 1.6)  # how much of a picture is seen, across


def collage(x: Tensor, count: int, order: torch.Generator) -> Tensor:
    """Return `count` mixtures of the inputs `x` (n, ...).

    Of pictures (n, channels, height, width) three are turned, scaled and shifted, and then added or laid over one
    another: strange pictures, but with the edges and greys of whatever fills a frame. All else is mixed two by two.
    """

    def rand() -> Tensor:
        return torch.rand((count,) + (1,) * (x.dim() - 1), generator=order)

    def some() -> Tensor:
        return x[torch.randint(len(x), (count,), generator=order)]

    if x.dim() != 4:
        share = rand()
        return share * some() + (1 - share) * some()
    first, second, third = (_move(some(), order) for _ in range(3))
    parts = [first * rand(), second * rand(), third * rand()]
    over = parts[0].maximum(parts[1]).maximum(parts[2])
    mixed = torch.where(rand() < 0.5, over, parts[0] + parts[1] + parts[2])
    mixed = torch.where(rand() < 0.25, first, mixed)
    soft = 1.5 * functional.avg_pool2d(mixed, 5, 1, 2)
    mixed = torch.where(rand() < 0.3, soft, mixed)
    return mixed.clamp(x.amin(), x.amax())


def _move(x: Tensor, order: torch.Generator) -> Tensor:
    """Return pictures turned by any angle, scaled and shifted."""

    def rand() -> Tensor:
        return torch.rand(len(x), generator=order)

    turn = (rand() * 2 - 1) * math.pi
    across = _ZOOM[0] + (_ZOOM[1] - _ZOOM[0]) * rand()
    down = across * (0.6 + 0.8 * rand())
    rows = (
        torch.stack([turn.cos() * across, -turn.sin() * down, 0.8 * rand() - 0.4], -1),
        torch.stack([turn.sin() * across, turn.cos() * down, 0.8 * rand() - 0.4], -1),
    )
    grid = functional.affine_grid(torch.stack(rows, 1), list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, align_corners=False)
