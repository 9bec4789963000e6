"""Local training and evaluation; the proximal term: FedProx, Li et al. 2020, https://arxiv.org/abs/1812.06127."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from fedpress.client.training.frozen_weights import PrunedWeights
from fedpress.client.training.gradient_subspace import GradientSubspace
from fedpress.client.training.optimizers import make_optimizer
from fedpress.client.training.schedules import learning_rate
from fedpress.common.errors import DataError
from fedpress.common.rng import derive
from fedpress.common.task import ExamplesLike
from fedpress.settings.training import TrainingSettings

Metrics = dict[str, int | float | list[int] | list[float]]  # the values of a Flower MetricRecord
_EVALUATION_BATCH = 100  # larger batches exceed the CPU's cache: up to twice as slow


def train(
    model: nn.Module,
    examples: ExamplesLike,
    training: TrainingSettings,
    *,
    round: int,
    rounds: int,
    seed: int,
    partition: int,
    device: str,
    prunes: bool = False,
) -> Metrics:
    """Train `model` in place; return num-examples, steps, and train_loss, their mean without penalties.

    The order of examples and dropout derive from (seed, round, partition) alone, so the result is the same bits in any
    process. If `prunes`, weights that are minus zero are pruned, and remain so.

    Raises
    ------
    DataError
        If the node has no examples.
    """
    count = len(examples.x)
    if count == 0:
        raise DataError(f"node {partition} has no examples")
    rng = derive(seed, "train", round, partition)
    # torch.manual_seed also seeds devices that are not in use, which takes as long as two small steps.
    seed_dropout = torch.default_generator.manual_seed if device == "cpu" else torch.manual_seed
    seed_dropout(int(rng.integers(2**63)))
    order = torch.Generator().manual_seed(int(rng.integers(2**63)))
    x, y = _channels_last(model, examples.x.to(device)), examples.y.to(device)
    parameters = [p for p in model.parameters() if p.requires_grad]
    pruned = PrunedWeights(parameters) if prunes else None
    within = GradientSubspace(model, training.subspace) if training.subspace else None
    start = [p.detach().clone() for p in parameters] if training.proximal_mu else []
    optimizer = make_optimizer(parameters, training, learning_rate(training, round, rounds))
    model.train()
    losses: list[Tensor] = []  # kept on the device: reading one would synchronise
    for batch in _batches(count, training, order):
        inputs, targets = x[batch], y[batch]
        optimizer.zero_grad()
        loss = loss_of(model(inputs), targets)
        losses.append(loss.detach())
        if training.l1:
            loss = loss + training.l1 * sum(p.abs().sum() for p in parameters)
        loss.backward()  # type: ignore[no-untyped-call]
        if start:
            for parameter, origin in zip(parameters, start, strict=True):
                if parameter.grad is not None:
                    parameter.grad.add_(parameter.detach() - origin, alpha=training.proximal_mu)
        if pruned is not None:
            pruned.clear_gradients()
        if within is not None:
            within.project_gradients()
        if training.clip_norm:
            nn.utils.clip_grad_norm_(parameters, training.clip_norm)
        optimizer.step()
        if pruned is not None:
            pruned.restore()
    optimizer.zero_grad()  # frees the gradients, which are as large as the model
    return {"num-examples": count, "train_loss": float(torch.stack(losses).mean()), "steps": len(losses)}


def evaluate(model: nn.Module, examples: ExamplesLike, device: str) -> Metrics:
    """Return num-examples, mean loss and accuracy of `model`; each step of a sequence is one prediction.

    Raises
    ------
    DataError
        If there are no examples.
    """
    count = len(examples.x)
    if count == 0:
        raise DataError("there are no examples to evaluate on")
    model.eval()
    _channels_last(
        model, examples.x[:1]
    )  # converted before inference mode: weights converted within it could not be trained
    loss = correct = predictions = 0.0
    with torch.inference_mode():
        for first in range(0, count, _EVALUATION_BATCH):
            x = examples.x[first : first + _EVALUATION_BATCH].to(device)
            y = examples.y[first : first + _EVALUATION_BATCH].to(device)
            scores = model(_channels_last(model, x))
            loss += float(loss_of(scores, y)) * y.numel()
            correct += float((scores.argmax(-1) == y).sum())
            predictions += y.numel()
    return {"num-examples": count, "loss": loss / predictions, "accuracy": correct / predictions}


def count_classes(model: nn.Module, examples: ExamplesLike, device: str) -> list[int]:
    """Return the number of the node's targets in each class of `model`."""
    model.eval()
    x = _channels_last(model, examples.x[:1].to(device))
    with torch.inference_mode():
        classes = model(x).shape[-1]
    counts: list[int] = torch.bincount(examples.y.flatten(), minlength=classes).tolist()
    return counts


def _channels_last(model: nn.Module, x: Tensor) -> Tensor:
    """Convert `model` to channels-last, in which CPU convolutions run a fifth faster; return images `x` likewise."""
    if x.dim() != 4:
        return x
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return x.contiguous(memory_format=torch.channels_last)


def loss_of(scores: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy; the last axis of `scores` is the classes."""
    if targets.dim() > 1:
        scores, targets = scores.flatten(0, -2), targets.flatten()
    return nn.functional.cross_entropy(scores, targets)


def _batches(count: int, training: TrainingSettings, order: torch.Generator) -> Iterator[Tensor]:
    """Yield the examples of each step: every epoch is a new permutation, its last batch may be short."""
    steps, epochs = 0, 0
    while training.local_steps > steps if training.local_steps else epochs < training.local_epochs:
        for batch in torch.randperm(count, generator=order).split(training.batch_size):  # type: ignore[no-untyped-call]
            if training.local_steps and steps == training.local_steps:
                return
            steps += 1
            yield batch
        epochs += 1
