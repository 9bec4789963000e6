"""Laws of the local trainer: it does what a loop written by hand with torch does, and always to the same bits."""

import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedpress.client.training.loop import count_classes, evaluate, loss_of, train
from fedpress.client.training.optimizers import SGD
from fedpress.common.errors import DataError
from fedpress.settings.training import OPTIMIZERS, TrainingSettings

COUNT = 22


def examples(count: int = COUNT) -> SimpleNamespace:
    rng = torch.Generator().manual_seed(1)
    return SimpleNamespace(x=torch.randn(count, 6, generator=rng), y=torch.randint(3, (count,), generator=rng))


def make_model(dropout: float = 0.0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Dropout(dropout), nn.Linear(5, 3))


def trained(
    training: TrainingSettings, data: Any = None, dropout: float = 0.0, **where: int
) -> tuple[nn.Sequential, dict]:
    model = make_model(dropout)
    place = {"round": 2, "rounds": 5, "seed": 7, "partition": 3, **where}
    return model, train(model, data or examples(), training, **place, device="cpu")


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def by_hand(
    make: Callable[[Any], torch.optim.Optimizer],
    steps: int = 4,
    penalty: Callable[[list[Tensor], list[Tensor]], Tensor] = lambda now, start: torch.zeros(()),
    change: Callable[[list[Tensor]], None] = lambda gradients: None,
) -> tuple[Tensor, float]:
    """Train on all examples at once, for which their order does not matter; return weights and the mean loss."""
    model, data = make_model(), examples()
    parameters = list(model.parameters())
    start = [p.detach().clone() for p in parameters]
    optimizer = make(parameters)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(data.x), data.y)
        losses.append(float(loss.detach()))
        (loss + penalty(parameters, start)).backward()
        change([p.grad for p in parameters])
        optimizer.step()
    return weights(model), float(np.mean(losses))


BY_HAND = [
    ({"optimizer": "sgd", "lr": 0.3}, lambda p: torch.optim.SGD(p, 0.3)),
    ({"optimizer": "sgd", "lr": 0.3, "momentum": 0.8}, lambda p: torch.optim.SGD(p, 0.3, momentum=0.8)),
    (
        {"optimizer": "sgd", "lr": 0.3, "momentum": 0.8, "nesterov": True, "weight_decay": 0.1},
        lambda p: torch.optim.SGD(p, 0.3, momentum=0.8, nesterov=True, weight_decay=0.1),
    ),
    ({"optimizer": "adagrad", "lr": 0.1}, lambda p: torch.optim.Adagrad(p, 0.1)),
    (
        {"optimizer": "rmsprop", "lr": 0.01, "weight_decay": 0.1},
        lambda p: torch.optim.RMSprop(p, 0.01, weight_decay=0.1),
    ),
    ({"optimizer": "adam", "lr": 0.01, "weight_decay": 0.1}, lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.1)),
    ({"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.1}, lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1)),
    ({"optimizer": "adamw", "lr": 0.01}, lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.0)),
    ({"optimizer": "nadam", "lr": 0.01}, lambda p: torch.optim.NAdam(p, 0.01)),
]


@pytest.mark.parametrize(("settings", "make"), BY_HAND)
def test_an_optimizer_is_the_loop_by_hand(settings: dict[str, Any], make: Callable) -> None:
    model, metrics = trained(TrainingSettings(batch_size=COUNT, local_epochs=4, **settings))
    due, loss = by_hand(make)
    torch.testing.assert_close(weights(model), due, rtol=1e-4, atol=1e-6)
    assert metrics["train_loss"] == pytest.approx(loss, rel=1e-5)
    assert not torch.allclose(due, weights(make_model()), atol=1e-3)


def test_every_optimizer_is_tried() -> None:
    assert {settings["optimizer"] for settings, _ in BY_HAND} == set(OPTIMIZERS)


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, 0.3)


def test_the_proximal_term_is_half_mu_times_the_squared_distance() -> None:
    model, metrics = trained(TrainingSettings(lr=0.3, batch_size=COUNT, local_epochs=4, proximal_mu=0.7))
    due, loss = by_hand(
        sgd, penalty=lambda now, start: 0.35 * sum(((p - q) ** 2).sum() for p, q in zip(now, start, strict=True))
    )
    torch.testing.assert_close(weights(model), due, rtol=1e-4, atol=1e-6)
    assert metrics["train_loss"] == pytest.approx(loss, rel=1e-5)  # penalties are no part of it
    start = weights(make_model())
    free, _ = trained(TrainingSettings(lr=0.3, batch_size=COUNT, local_epochs=4))
    assert (weights(model) - start).norm() < (weights(free) - start).norm()


def test_l1_is_the_sum_of_magnitudes() -> None:
    model, metrics = trained(TrainingSettings(lr=0.3, batch_size=COUNT, local_epochs=4, l1=0.05))
    due, loss = by_hand(sgd, penalty=lambda now, start: 0.05 * sum(p.abs().sum() for p in now))
    torch.testing.assert_close(weights(model), due, rtol=1e-4, atol=1e-6)
    assert metrics["train_loss"] == pytest.approx(loss, rel=1e-5)


def test_clipping_scales_the_whole_gradient() -> None:
    def clip(gradients: list[Tensor]) -> None:
        norm = torch.cat([g.flatten() for g in gradients]).norm()
        for gradient in gradients:
            gradient.mul_(min(1.0, 0.05 / float(norm)))

    model, _ = trained(TrainingSettings(lr=0.3, batch_size=COUNT, local_epochs=4, clip_norm=0.05))
    due, _ = by_hand(sgd, change=clip)
    torch.testing.assert_close(weights(model), due, rtol=1e-4, atol=1e-6)
    one, _ = trained(TrainingSettings(lr=1.0, batch_size=COUNT, clip_norm=0.05))
    assert (weights(one) - weights(make_model())).norm() == pytest.approx(0.05, rel=1e-3)


def test_the_proximal_pull_is_clipped_too() -> None:
    model, _ = trained(TrainingSettings(lr=1.0, batch_size=COUNT, local_steps=2, clip_norm=0.01, proximal_mu=1e4))
    assert (weights(model) - weights(make_model())).norm() <= 0.0201


def test_the_schedule_sets_the_rate_of_the_round() -> None:
    fast, _ = trained(TrainingSettings(lr=0.4, batch_size=COUNT, schedule="exponential", lr_decay=0.5), round=3)
    slow, _ = trained(TrainingSettings(lr=0.1, batch_size=COUNT), round=3)
    assert torch.equal(weights(fast), weights(slow))


def recorder() -> tuple[nn.Module, list[Tensor]]:
    """Make a model that writes down which examples each step sees; an example is its own number."""
    seen: list[Tensor] = []

    class Recorder(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x[:, 0].clone())
            return super().forward(x)

    return Recorder(1, 2), seen


def numbered(count: int) -> SimpleNamespace:
    return SimpleNamespace(x=torch.arange(count).float()[:, None], y=torch.zeros(count, dtype=torch.int64))


@pytest.mark.parametrize(("batch", "epochs"), [(4, 3), (22, 1), (100, 2), (1, 1)])
def test_an_epoch_is_a_permutation(batch: int, epochs: int) -> None:
    model, seen = recorder()
    settings = TrainingSettings(lr=1e-9, batch_size=batch, local_epochs=epochs)
    metrics = train(model, numbered(COUNT), settings, round=1, rounds=1, seed=0, partition=0, device="cpu")
    steps = -(-COUNT // batch)
    assert metrics["num-examples"] == COUNT
    assert metrics["steps"] == len(seen) == steps * epochs
    orders = [torch.cat(seen[epoch * steps : (epoch + 1) * steps]).tolist() for epoch in range(epochs)]
    assert all(sorted(order) == list(range(COUNT)) for order in orders)
    assert len({tuple(order) for order in orders}) == epochs
    assert {len(step) for step in seen[: steps - 1]} <= {batch}


@pytest.mark.parametrize("steps", [1, 5, 6, 7, 20])
def test_local_steps_take_the_place_of_epochs(steps: int) -> None:
    model, seen = recorder()
    settings = TrainingSettings(lr=1e-9, batch_size=4, local_epochs=9, local_steps=steps)
    metrics = train(model, numbered(COUNT), settings, round=1, rounds=1, seed=0, partition=0, device="cpu")
    assert metrics["steps"] == len(seen) == steps
    first = torch.cat(seen[:6]).tolist()
    assert len(set(first)) == len(first) == min(4 * steps, COUNT)


HARD = TrainingSettings(lr=0.2, momentum=0.9, batch_size=4, local_epochs=2, proximal_mu=0.1, clip_norm=1.0, l1=1e-3)


def test_the_same_place_gives_the_same_bits_whatever_went_before() -> None:
    one, first = trained(HARD, dropout=0.4)
    torch.rand(1000)
    np.random.seed(5)  # noqa: NPY002
    other, second = trained(HARD, dropout=0.4)
    assert torch.equal(weights(one), weights(other))
    assert first == second


@pytest.mark.parametrize("place", [{"round": 3}, {"seed": 8}, {"partition": 4}])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_every_other_place_has_its_own_order_and_dropout(place: dict[str, int], dropout: float) -> None:
    batch = 4 if dropout == 0 else COUNT  # then only dropout can tell
    settings = TrainingSettings(lr=0.2, batch_size=batch)
    here, there = (weights(trained(settings, dropout=dropout, **where)[0]) for where in ({}, place))
    assert not torch.allclose(here, there, atol=1e-5)


def test_another_process_gives_the_same_bits() -> None:
    code = (
        "import importlib.util, sys, torch\n"
        "torch.set_num_threads(1)\n"
        f"spec = importlib.util.spec_from_file_location('there', {__file__!r})\n"
        "there = importlib.util.module_from_spec(spec); spec.loader.exec_module(there)\n"
        "print(there.weights(there.trained(there.HARD, dropout=0.4)[0]).numpy().tobytes().hex())\n"
        "print('torch._dynamo' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = weights(trained(HARD, dropout=0.4)[0]).numpy().tobytes().hex()
    assert run.stdout.split() == [here, "False"], "SGD does without PyTorch's compiler"


@pytest.mark.parametrize(
    "options", [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}, {"weight_decay": 0.1, "momentum": 0.5}]
)
def test_sgd_is_torch_s(options: dict[str, float]) -> None:
    choice = {"momentum": 0.0, "nesterov": False, "weight_decay": 0.0} | options
    models = [make_model(0.0) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    optimizers = [
        SGD(list(models[0].parameters()), 0.1, **choice),
        torch.optim.SGD(models[1].parameters(), 0.1, **choice),
    ]
    x, y = examples().x, examples().y
    for _ in range(4):
        for model, optimizer in zip(models, optimizers, strict=True):
            optimizer.zero_grad()
            loss_of(model(x), y).backward()
            optimizer.step()
    assert torch.equal(weights(models[0]), weights(models[1]))


def test_a_model_is_used_by_one_node_after_another() -> None:
    """Nothing stays in it but its weights."""
    model = make_model(0.4)
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    where = {"round": 2, "rounds": 5, "seed": 7, "device": "cpu"}
    train(model, examples(5), HARD, partition=1, **where)
    evaluate(model, examples(), "cpu")
    model.load_state_dict(start)
    train(model, examples(), HARD, partition=3, **where)
    assert torch.equal(weights(model), weights(trained(HARD, dropout=0.4)[0]))


def test_a_model_that_was_evaluated_can_be_trained() -> None:
    """Also if evaluation was the first to lay its weights out for images."""
    data = SimpleNamespace(x=torch.randn(6, 2, 5, 5), y=torch.zeros(6, dtype=torch.int64))
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(27, 2))
    before = evaluate(model, data, "cpu")
    train(model, data, TrainingSettings(lr=0.1, batch_size=3), round=1, rounds=1, seed=0, partition=0, device="cpu")
    assert evaluate(model, data, "cpu")["loss"] < before["loss"]


def test_frozen_parameters_do_not_change() -> None:
    model = make_model()
    model[0].weight.requires_grad = False
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train(model, examples(), HARD, round=1, rounds=1, seed=0, partition=0, device="cpu")
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, start[name])}
    assert changed == {"0.bias", "3.weight", "3.bias"}


def test_images_train_as_they_would_in_any_memory_format() -> None:
    rng = torch.Generator().manual_seed(3)
    data = SimpleNamespace(x=torch.randn(10, 3, 8, 8, generator=rng), y=torch.randint(4, (10,), generator=rng))
    torch.manual_seed(4)
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 4, 3), nn.Flatten(), nn.Linear(64, 4))
    plain = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 4, 3), nn.Flatten(), nn.Linear(64, 4))
    plain.load_state_dict(model.state_dict())
    settings = TrainingSettings(lr=0.1, batch_size=10)
    train(model, data, settings, round=1, rounds=1, seed=0, partition=0, device="cpu")
    optimizer = torch.optim.SGD(plain.parameters(), 0.1)
    nn.functional.cross_entropy(plain(data.x), data.y).backward()
    optimizer.step()
    torch.testing.assert_close(weights(model), weights(plain), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("count", [1, 99, 100, 101, 250])
def test_evaluation_counts_every_example_once(count: int) -> None:
    model, data = make_model(0.5), examples(count)
    scores = evaluate(model, data, "cpu")
    outputs = model.eval()(data.x).detach()
    assert scores["num-examples"] == count
    assert scores["accuracy"] == pytest.approx(float((outputs.argmax(1) == data.y).float().mean()))
    assert scores["loss"] == pytest.approx(float(nn.functional.cross_entropy(outputs, data.y)), rel=1e-5)


def test_a_sequence_is_scored_at_every_step() -> None:
    """A model that always says 1 is right wherever 1 is due."""

    class Always(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([0.0, 3.0, 0.0]).expand(*x.shape, 3)

    y = torch.randint(3, (130, 7), generator=torch.Generator().manual_seed(0))
    scores = evaluate(Always(), SimpleNamespace(x=torch.zeros_like(y), y=y), "cpu")
    assert scores["num-examples"] == 130
    assert scores["accuracy"] == pytest.approx(float((y == 1).float().mean()))


def test_a_sequence_is_trained_at_every_step() -> None:
    x = torch.randint(3, (8, 5), generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    model, plain = (nn.Sequential(nn.Embedding(3, 4), nn.Linear(4, 3)) for _ in range(2))
    plain.load_state_dict(model.state_dict())
    data = SimpleNamespace(x=x, y=(x + 1) % 3)
    train(model, data, TrainingSettings(lr=0.5, batch_size=8), round=1, rounds=1, seed=0, partition=0, device="cpu")
    optimizer = torch.optim.SGD(plain.parameters(), 0.5)
    nn.functional.cross_entropy(plain(x).reshape(40, 3), data.y.reshape(40)).backward()
    optimizer.step()
    torch.testing.assert_close(weights(model), weights(plain), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shape", [(22,), (4, 5)])
def test_classes_are_counted_for_every_one_that_the_model_tells_apart(shape: tuple[int, ...]) -> None:
    y = torch.randint(2, shape, generator=torch.Generator().manual_seed(1))
    data = SimpleNamespace(x=torch.zeros(shape[0], 6), y=y)
    counts = count_classes(make_model(), data, "cpu")
    assert counts == [int((y == 0).sum()), int((y == 1).sum()), 0]


def test_a_node_without_examples_is_one_line() -> None:
    with pytest.raises(DataError, match=r"^node 3 has no examples$"):
        trained(TrainingSettings(), examples(0))
    with pytest.raises(DataError, match=r"^there are no examples to evaluate on$"):
        evaluate(make_model(), examples(0), "cpu")
