"""Evaluation of a model on examples."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fedpress.compression.model.prune_channels import NORMS

Batches = Sequence[tuple[Tensor, Tensor]]  # inputs (n, ...) and targets (n,), or (n, steps)
_BATCH = 100  # larger ones fall out of the cache


def batches_of(x: Tensor, y: Tensor) -> Batches:
    """Return examples as a list of batches."""
    return list(zip(x.split(_BATCH), y.split(_BATCH), strict=True))  # type: ignore[no-untyped-call]


def loss(scores: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy; the last axis of scores is the classes."""
    return nn.functional.cross_entropy(scores.flatten(0, -2), targets.flatten())


def scores_of(model: nn.Module, x: Tensor, device: str = "cpu") -> Tensor:
    """Return the scores (n, ..., classes) of `model` in evaluation mode."""
    model.eval()
    # The same memory layout whatever the model had before: another one would change the bits of the result.
    parts = channels_last(model, x).split(_BATCH)  # type: ignore[no-untyped-call]
    with torch.inference_mode():
        scores = torch.cat([model(part.to(device)).cpu() for part in parts])
    return scores.clone()  # a tensor of inference mode could not be used where gradients are computed


def channels_last(model: nn.Module, x: Tensor) -> Tensor:
    """Convert images and `model` to the memory format of the fastest convolutions on a CPU; return the images."""
    if x.dim() != 4:
        return x
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return x.contiguous(memory_format=torch.channels_last)


def accuracy_by_class(model: nn.Module, batches: Batches, classes: int) -> list[float]:
    """Return the accuracy on each class, (classes,), and last on all; nan for a class without examples."""
    model.eval()
    right, count = torch.zeros(classes), torch.zeros(classes)
    with torch.no_grad():
        for x, y in batches:
            predicted, targets = model(x).argmax(-1).flatten(), y.flatten()
            count += torch.bincount(targets, minlength=classes)
            right += torch.bincount(targets[predicted == targets], minlength=classes)
    return [*(right / count).tolist(), float(right.sum() / count.sum())]


def recalibrate(model: nn.Module, batches: Batches) -> None:
    """Measure mean and variance of batch norms again, in place: they change if channels are removed.

    Batches of one example, which have no variance, are left out.
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
