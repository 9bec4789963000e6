"""A model looked at from outside: what it says of examples, and what goes into its layers and out of them."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from fedpress.compression.model.prune_channels import NORMS

Batches = Sequence[tuple[Tensor, Tensor]]  # inputs (n, ...) and targets (n,), or (n, steps)
Shape = tuple[int, ...]
_BATCH = 100  # larger ones fall out of the cache


def batches_of(x: Tensor, y: Tensor) -> Batches:
    """Return examples in batches."""
    return list(zip(x.split(_BATCH), y.split(_BATCH), strict=True))  # type: ignore[no-untyped-call]


def loss(scores: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy; scores have their classes on the last axis."""
    return nn.functional.cross_entropy(scores.flatten(0, -2), targets.flatten())


def loss_on(model: nn.Module, batches: Batches) -> float:
    """Return the mean loss of a model on examples."""
    model.eval()
    with torch.no_grad():
        losses = [(float(loss(model(x), y)), y.numel()) for x, y in batches]
    return sum(value * count for value, count in losses) / sum(count for _, count in losses)


def accuracy_by_class(model: nn.Module, batches: Batches, classes: int) -> list[float]:
    """Return the accuracy on each class, (classes,), and last on all; nan for a class without examples."""
    model.eval()
    right, count = torch.zeros(classes), torch.zeros(classes)
    with torch.no_grad():
        for x, y in batches:
            said, targets = model(x).argmax(-1).flatten(), y.flatten()
            count += torch.bincount(targets, minlength=classes)
            right += torch.bincount(targets[said == targets], minlength=classes)
    return [*(right / count).tolist(), float(right.sum() / count.sum())]


def shapes(model: nn.Module, x: Tensor) -> dict[str, tuple[Shape, Shape]]:
    """Return what each module that takes one tensor and gives one takes and gives, in the order in which they end."""
    seen: dict[str, tuple[Shape, Shape]] = {}

    def look(name: str) -> Callable[[nn.Module, tuple[object, ...], object], None]:
        def hook(_: nn.Module, inputs: tuple[object, ...], output: object) -> None:
            if len(inputs) == 1 and isinstance(inputs[0], Tensor) and isinstance(output, Tensor):
                seen[name] = tuple(inputs[0].shape), tuple(output.shape)

        return hook

    hooks = [module.register_forward_hook(look(name)) for name, module in model.named_modules()]
    try:
        model.eval()
        with torch.no_grad():
            model(x)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def recalibrate(model: nn.Module, batches: Batches) -> None:
    """Measure anew, in place, what batch norms take for mean and variance: of fewer channels they are others.

    One example has no variance: a batch of it alone is left out.
    """
    several = [x for x, _ in batches if len(x) > 1]
    norms = [m for m in model.modules() if isinstance(m, NORMS)] if several else []
    before = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
        norm.train()
    with torch.no_grad():
        for x in several if norms else ():
            model(x)
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum
    model.eval()
