"""Mixtures of inputs: mixup, Zhang et al. 2018, https://arxiv.org/abs/1710.09412; images are rotated and scaled."""

import math

import torch
from torch import Tensor
from torch.nn import functional

_ZOOM = (0.4, 1.6)  # smallest and largest share of an image's width that is shown


def collage(x: Tensor, count: int, order: torch.Generator) -> Tensor:
    """Return `count` mixtures of the inputs `x` (n, ...).

    Three images (n, channels, height, width) at a time are rotated, scaled and shifted, then added or combined by their
    maximum: the results show no object, but have the edges and intensities of images. Other inputs are mixed in pairs.
    """

    def rand() -> Tensor:
        return torch.rand((count,) + (1,) * (x.dim() - 1), generator=order)

    def sample() -> Tensor:
        return x[torch.randint(len(x), (count,), generator=order)]

    if x.dim() != 4:
        share = rand()
        return share * sample() + (1 - share) * sample()
    first, second, third = (_transform(sample(), order) for _ in range(3))
    scaled = [first * rand(), second * rand(), third * rand()]
    maximum = scaled[0].maximum(scaled[1]).maximum(scaled[2])
    mixed = torch.where(rand() < 0.5, maximum, scaled[0] + scaled[1] + scaled[2])
    mixed = torch.where(rand() < 0.25, first, mixed)
    blurred = 1.5 * functional.avg_pool2d(mixed, 5, 1, 2)
    mixed = torch.where(rand() < 0.3, blurred, mixed)
    return mixed.clamp(x.amin(), x.amax())


def _transform(x: Tensor, order: torch.Generator) -> Tensor:
    """Return images rotated by a random angle, scaled and shifted."""

    def rand() -> Tensor:
        return torch.rand(len(x), generator=order)

    angle = (rand() * 2 - 1) * math.pi
    width = _ZOOM[0] + (_ZOOM[1] - _ZOOM[0]) * rand()
    height = width * (0.6 + 0.8 * rand())
    rows = (
        torch.stack([angle.cos() * width, -angle.sin() * height, 0.8 * rand() - 0.4], -1),
        torch.stack([angle.sin() * width, angle.cos() * height, 0.8 * rand() - 0.4], -1),
    )
    grid = functional.affine_grid(torch.stack(rows, 1), list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, align_corners=False)
