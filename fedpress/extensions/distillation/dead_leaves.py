"""Dead leaves: synthetic images of overlapping shapes, Baradad et al. 2021, https://arxiv.org/abs/2106.05963."""

import math

import torch
from torch import Tensor

_LAYERS = 6  # greatest number of overlapping shapes


def dead_leaves(count: int, shape: tuple[int, ...], order: torch.Generator) -> Tensor:
    """Return `count` inputs of `shape`: images, (channels, height, width), in [0, 1]; otherwise noise around 0.

    Inputs of another number of axes are Gaussian noise, each with a random standard deviation.
    """
    if len(shape) != 3:
        spread = torch.rand((count,) + (1,) * len(shape), generator=order) * 2
        return torch.randn((count, *shape), generator=order) * spread
    channels, height, width = shape
    images = _draw(count * channels, height, width, order)
    return images.view(count, channels, height, width).contiguous()


def _draw(count: int, height: int, width: int, order: torch.Generator) -> Tensor:
    """Return `count` grey images, (count, height, width)."""

    def rand() -> Tensor:
        return torch.rand(count, 1, 1, generator=order)

    y = torch.linspace(-1, 1, height)[:, None]
    x = torch.linspace(-1, 1, width)[None, :]
    image = (rand() * (rand() < 0.5)).expand(count, height, width).clone()
    layers = (rand() * _LAYERS).long() + 1
    for layer in range(_LAYERS):
        center_x, center_y, angle = rand() * 1.6 - 0.8, rand() * 1.6 - 0.8, rand() * 2 * math.pi
        half_width, half_height = 0.08 + 0.8 * rand() ** 1.5, 0.08 + 0.8 * rand() ** 1.5
        u = ((x - center_x) * angle.cos() + (y - center_y) * angle.sin()) / half_width
        v = ((y - center_y) * angle.cos() - (x - center_x) * angle.sin()) / half_height
        distance = torch.where(rand() < 0.5, u.abs().maximum(v.abs()), (u * u + v * v).sqrt())
        covered = (distance < 1) & (layer < layers)
        frequency, phase, tilt = 2 + 14 * rand(), rand() * 2 * math.pi, rand() * 2 * math.pi
        stripes = 0.5 * (frequency * (x * tilt.cos() + y * tilt.sin()) + phase).sin() * (rand() < 0.4) * rand()
        grain = 0.25 * torch.randn(count, height, width, generator=order) * (rand() < 0.5) * rand()
        image = torch.where(covered, rand() + stripes + grain, image)
    return image.clamp_(0, 1)
