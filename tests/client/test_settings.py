"""How a node trains: settings are read and checked, schedules are torch's own."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedpress.client.training.schedules import learning_rate
from fedpress.common.errors import SettingError
from fedpress.common.settings import read
from fedpress.settings.training import SCHEDULES, TrainingSettings


def test_settings_are_read_by_their_names_with_dashes() -> None:
    config = {"optimizer": "adamw", "lr": 1, "batch-size": 8, "warmup-rounds": 2, "rounds": 40, "up": "none"}
    assert read(TrainingSettings, config) == TrainingSettings(optimizer="adamw", lr=1.0, batch_size=8, warmup_rounds=2)


@pytest.mark.parametrize(
    ("config", "setting"),
    [
        ({"optimizer": "adamm"}, "optimizer"),
        ({"schedule": "cosin"}, "schedule"),
        ({"lr": 0.0}, "lr"),
        ({"lr": math.nan}, "lr"),
        ({"lr": math.inf}, "lr"),
        ({"lr": "fast"}, "lr"),
        ({"lr": True}, "lr"),
        ({"momentum": 1.0}, "momentum"),
        ({"nesterov": 1}, "nesterov"),
        ({"nesterov": True}, "momentum"),
        ({"optimizer": "adam", "momentum": 0.9}, "momentum"),
        ({"batch-size": 0}, "batch-size"),
        ({"batch-size": 2.0}, "batch-size"),
        ({"local-epochs": 0}, "local-epochs"),
        ({"local-steps": -1}, "local-steps"),
        ({"warmup-rounds": -1}, "warmup-rounds"),
        ({"lr-end": 1.5}, "lr-end"),
        ({"lr-step": 0}, "lr-step"),
        ({"lr-decay": 0.0}, "lr-decay"),
        ({"l1": -0.1}, "l1"),
        ({"weight-decay": -0.1}, "weight-decay"),
        ({"clip-norm": -1.0}, "clip-norm"),
        ({"clip-norm": math.nan}, "clip-norm"),
        ({"proximal-mu": -1.0}, "proximal-mu"),
    ],
)
def test_a_bad_value_is_one_line_that_names_it(config: dict[str, Any], setting: str) -> None:
    with pytest.raises(SettingError, match=rf"^{setting} must be .*, got .*$"):
        read(TrainingSettings, config)


TORCHS = {
    "constant": lambda o, rounds: torch.optim.lr_scheduler.ConstantLR(o, factor=1.0),
    "linear": lambda o, rounds: torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.2, total_iters=rounds),
    "step": lambda o, rounds: torch.optim.lr_scheduler.StepLR(o, 3, 0.6),
    "exponential": lambda o, rounds: torch.optim.lr_scheduler.ExponentialLR(o, 0.6),
    "cosine": lambda o, rounds: torch.optim.lr_scheduler.CosineAnnealingLR(o, rounds, eta_min=0.2 * 0.5),
}


def rates(training: TrainingSettings, rounds: int) -> list[float]:
    return [learning_rate(training, number, rounds) for number in range(1, rounds + 1)]


@pytest.mark.parametrize("warm", [0, 4])
@pytest.mark.parametrize("name", SCHEDULES)
def test_after_its_warm_up_a_schedule_is_torchs(name: str, warm: int) -> None:
    rounds = 12
    training = TrainingSettings(lr=0.5, schedule=name, warmup_rounds=warm, lr_end=0.2, lr_step=3, lr_decay=0.6)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.5)
    scheduler = TORCHS[name](optimizer, rounds)
    due = []
    for _ in range(rounds):
        due.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates(training, rounds + warm)[warm:] == pytest.approx(due)


@given(
    name=st.sampled_from(SCHEDULES),
    warm=st.integers(0, 12),
    rounds=st.integers(1, 10),
    end=st.sampled_from([0.0, 0.1, 1.0]),
)
def test_no_round_is_wasted_and_none_is_faster_than_lr(name: str, warm: int, rounds: int, end: float) -> None:
    training = TrainingSettings(lr=0.5, schedule=name, warmup_rounds=warm, lr_end=end)
    found = rates(training, rounds)
    assert all(0 < rate <= 0.5 for rate in found)
    rising = found[: warm + 1]
    assert rising == pytest.approx([0.5 * number / (warm + 1) for number in range(1, len(rising) + 1)])
    assert found[warm:] == sorted(found[warm:], reverse=True)
