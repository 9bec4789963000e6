"""Pictures moved and mirrored at random, as in training by He et al. 2016, https://arxiv.org/abs/1512.03385."""

import torch
from torch import Tensor, nn


def augment(x: Tensor, shift: int, flip: bool, rng: torch.Generator) -> Tensor:
    """Return images (n, channels, height, width), randomly shifted by at most `shift` pixels, and mirrored."""
    count, _, height, width = x.shape
    if flip:
        mirrored = torch.rand(count, generator=rng) < 0.5
        x = torch.where(mirrored[:, None, None, None].to(x.device), x.flip(3), x)
    if not shift:
        return x
    by = torch.randint(2 * shift + 1, (count, 2), generator=rng)
    padded = nn.functional.pad(x, (shift, shift, shift, shift)).permute(0, 2, 3, 1)
    rows = by[:, :1] + torch.arange(height)  # (n, height)
    columns = by[:, 1:] + torch.arange(width)  # (n, width)
    picked = padded[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2)  # (n, channels, height, width), laid out with channels last
