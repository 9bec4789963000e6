"""Images that a model assigns to its classes: DeepInversion, Yin et al. 2020, https://arxiv.org/abs/1912.08795.

As there, a penalty keeps the inputs of batch norms close to their running statistics, and total variation keeps images
smooth. It needs one model at a time; DENSE, Zhang et al. 2022, https://arxiv.org/abs/2112.12371, needs the ensemble.
"""

import torch
from torch import Tensor, nn

from fedpress.extensions.distillation.ensemble import Teacher

_RATE = 0.05  # learning rate of Adam, for inputs of about unit scale
_SMOOTH, _NORMS = 0.1, 0.1  # weights of the total variation and of the batch norm penalty
_BATCH = 250


def invert(teacher: Teacher, start: Tensor, steps: int, order: torch.Generator, device: str) -> Tensor:
    """Optimize `start` (n, ...) for `steps` towards classes drawn by their frequency in the teacher's examples."""
    if not len(start):
        return start
    model, is_image = teacher.model.eval(), start.dim() == 4
    counts = teacher.statistics.counts
    with torch.inference_mode():
        classes = model(start[:1].to(device)).shape[1:]
    frequencies = torch.ones(classes[-1]) if counts is None or not counts.sum() else counts.float()
    targets = torch.multinomial(frequencies, len(start) * classes[:-1].numel(), replacement=True, generator=order)
    targets = targets.view(len(start), *classes[:-1])
    trainable = [p for p in model.parameters() if p.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        parts = [
            _optimise(model, x.to(device), y.to(device), steps, is_image)
            for x, y in zip(start.split(_BATCH), targets.split(_BATCH), strict=True)  # type: ignore[no-untyped-call]
        ]
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
    return torch.cat(parts)


def _optimise(model: nn.Module, start: Tensor, targets: Tensor, steps: int, is_image: bool) -> Tensor:
    x = start.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([x], _RATE)
    distances: list[Tensor] = []
    hooks = [
        module.register_forward_pre_hook(lambda norm, inputs: distances.append(_distance(norm, inputs[0])))
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None
    ]
    try:
        for _ in range(steps):
            distances.clear()
            scores = model(x)
            loss = nn.functional.cross_entropy(scores.flatten(0, -2), targets.flatten())
            if is_image:
                smooth = (x[..., 1:, :] - x[..., :-1, :]).abs().mean() + (x[..., 1:] - x[..., :-1]).abs().mean()
                loss = loss + _SMOOTH * smooth
            for distance in distances:
                loss = loss + _NORMS * distance
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if is_image:
                with torch.no_grad():
                    x.clamp_(0, 1)
    finally:
        for hook in hooks:
            hook.remove()
    return x.detach().cpu()


def _distance(norm: nn.modules.batchnorm._BatchNorm, x: Tensor) -> Tensor:
    """Return the squared distance of the mean and variance of `x` from a batch norm's running statistics."""
    axes = [axis for axis in range(x.dim()) if axis != 1]
    expected = norm.running_mean, norm.running_var
    found = x.mean(axes), x.var(axes, unbiased=False)
    return torch.stack([(a - b).square().mean() for a, b in zip(found, expected, strict=True) if b is not None]).sum()
