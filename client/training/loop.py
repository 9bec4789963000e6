"""Local training, SGD and its kin; the proximal term: FedProx, Li et al. 2020, https://arxiv.org/abs/1812.06127."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from fedpress.client.training.frozen_weights import PrunedWeights
from fedpress.client.training.schedules import learning_rate
from fedpress.common.errors import DataError
from fedpress.common.rng import derive
from fedpress.common.task import ExamplesLike
from fedpress.settings.training import TrainingSettings

Metrics = dict[str, int | float | list[int] | list[float]]  # what a Flower MetricRecord is made of
_EVALUATION_BATCH = 100  # larger ones fall out of the cache: up to twice as slow


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
    sparse: bool = False,
) -> Metrics:
    """Train `model` in place; return num-examples, steps, and train_loss, their mean without penalties.

    The order of examples and dropout derive from (seed, round, partition) alone, so a node trains to the same bits
    wherever and whenever it does. If `sparse`, weights that are minus zero are dead, and stay it.

    Raises
    ------
    DataError
        If the node has no examples.
    """
    count = len(examples.x)
    if count == 0:
        raise DataError(f"node {partition} has no examples")
    rng = derive(seed, "train", round, partition)
    # torch.manual_seed takes as long as two small steps, telling devices that are not in use.
    seed_dropout = torch.default_generator.manual_seed if device == "cpu" else torch.manual_seed
    seed_dropout(int(rng.integers(2**63)))
    order = torch.Generator().manual_seed(int(rng.integers(2**63)))
    x, y = _quick(model, examples.x.to(device)), examples.y.to(device)
    parameters = [p for p in model.parameters() if p.requires_grad]
    dead = PrunedWeights(parameters) if sparse else None
    start = [p.detach().clone() for p in parameters] if training.proximal_mu else []
    optimizer = make_optimizer(parameters, training, learning_rate(training, round, rounds))
    model.train()
    losses: list[Tensor] = []  # left on the device: to read one would wait for it
    for batch in _batches(count, training, order):
        inputs, targets = x[batch], y[batch]
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(model(inputs), targets)
        losses.append(loss.detach())
        if training.l1:
            loss = loss + training.l1 * sum(p.abs().sum() for p in parameters)
        loss.backward()  # type: ignore[no-untyped-call]
        if start:
            for parameter, origin in zip(parameters, start, strict=True):
                if parameter.grad is not None:
                    parameter.grad.add_(parameter.detach() - origin, alpha=training.proximal_mu)
        if dead is not None:
            dead.still()
        if training.clip_norm:
            nn.utils.clip_grad_norm_(parameters, training.clip_norm)
        optimizer.step()
        if dead is not None:
            dead.bury()
    optimizer.zero_grad(set_to_none=True)  # gradients are as large as the model, and of no more use
    return {"num-examples": count, "train_loss": float(torch.stack(losses).mean()), "steps": len(losses)}


def evaluate(model: nn.Module, examples: ExamplesLike, device: str) -> Metrics:
    """Return num-examples, mean loss and accuracy of `model`; a sequence's every step counts as one prediction.

    Raises
    ------
    DataError
        If there are no examples.
    """
    count = len(examples.x)
    if count == 0:
        raise DataError("there are no examples to evaluate on")
    model.eval()
    _quick(model, examples.x[:1])  # weights that are laid out anew in inference mode could not be trained again
    loss = right = predictions = 0.0
    with torch.inference_mode():
        for first in range(0, count, _EVALUATION_BATCH):
            x = examples.x[first : first + _EVALUATION_BATCH].to(device)
            y = examples.y[first : first + _EVALUATION_BATCH].to(device)
            scores = model(_quick(model, x))
            loss += float(loss_of(scores, y)) * y.numel()
            right += float((scores.argmax(-1) == y).sum())
            predictions += y.numel()
    return {"num-examples": count, "loss": loss / predictions, "accuracy": right / predictions}


def count_classes(model: nn.Module, examples: ExamplesLike, device: str) -> list[int]:
    """Return how many targets of each class that `model` tells apart the node has."""
    model.eval()
    x = _quick(model, examples.x[:1].to(device))
    with torch.inference_mode():
        classes = model(x).shape[-1]
    counts: list[int] = torch.bincount(examples.y.flatten(), minlength=classes).tolist()
    return counts


def make_optimizer(parameters: list[nn.Parameter], training: TrainingSettings, lr: float) -> torch.optim.Optimizer:
    """Return a fresh optimiser: nodes carry no moments from round to round."""
    decay = training.weight_decay
    match training.optimizer:
        case "adagrad":
            return torch.optim.Adagrad(parameters, lr, weight_decay=decay)
        case "rmsprop":
            return torch.optim.RMSprop(parameters, lr, weight_decay=decay)
        case "adam":
            return torch.optim.Adam(parameters, lr, weight_decay=decay)
        case "adamw":
            return torch.optim.AdamW(parameters, lr, weight_decay=decay)
        case "nadam":
            return torch.optim.NAdam(parameters, lr, weight_decay=decay)
        case _:
            return torch.optim.SGD(
                parameters, lr, momentum=training.momentum, nesterov=training.nesterov, weight_decay=decay
            )


def _quick(model: nn.Module, x: Tensor) -> Tensor:
    """Return images in the memory format on which convolutions run a fifth faster on a CPU, and lay `model` out so."""
    if x.dim() != 4:
        return x
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return x.contiguous(memory_format=torch.channels_last)


def loss_of(scores: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy; scores have their classes on the last axis."""
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
