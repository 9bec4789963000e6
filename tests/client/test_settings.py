"""How a node trains: settings are read and checked, schedules are torch's own."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedpress.client.training.schedules import learning_rate
from fedpress.client.training.settings import SCHEDULES, Training
from fedpress.common.errors import SettingError
from fedpress.common.settings import read


def test_settings_are_read_by_their_names_with_dashes() -> None:
    config = {"optimizer": "adamw", "lr": 1, "batch-size": 8, "warmup-rounds": 2, "rounds": 40, "up": "none"}
    assert read(Training, config) == Training(optimizer="adamw", lr=1.0, batch_size=8, warmup_rounds=2)


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({"optimizer": "adamm"}, "unknown optimizer 'adamm': did you mean 'adam' or 'nadam' or 'adamw'?"),
        ({"schedule": "cosin"}, "unknown schedule 'cosin': did you mean 'cosine'?"),
        ({"lr": 0.0}, "lr is above 0, got 0.0"),
        ({"lr": math.nan}, "lr is a finite number, got nan"),
        ({"lr": "fast"}, "lr is a number, got 'fast'"),
        ({"lr": True}, "lr is a number, got True"),
        ({"momentum": 1.0}, "momentum is in [0, 1), got 1.0"),
        ({"nesterov": 1}, "nesterov is true or false, got 1"),
        ({"nesterov": True}, "nesterov needs a momentum above 0"),
        ({"optimizer": "adam", "momentum": 0.9}, "momentum belongs to sgd, got momentum 0.9 with adam"),
        ({"batch-size": 0}, "batch-size is at least 1, got 0"),
        ({"batch-size": 2.0}, "batch-size is a whole number, got 2.0"),
        ({"local-epochs": 0}, "local-epochs is at least 1, got 0"),
        ({"local-steps": -1}, "local-steps is at least 0, got -1"),
        ({"warmup-rounds": -1}, "warmup-rounds is at least 0, got -1"),
        ({"lr-end": 1.5}, "lr-end is in [0, 1], got 1.5"),
        ({"lr-step": 0}, "lr-step is at least 1, got 0"),
        ({"lr-decay": 0.0}, "lr-decay is above 0, got 0.0"),
        ({"l1": -0.1}, "l1 is at least 0, got -0.1"),
        ({"weight-decay": -0.1}, "weight-decay is at least 0, got -0.1"),
        ({"clip-norm": -1.0}, "clip-norm is at least 0, got -1.0"),
        ({"lr": math.inf}, "lr is a finite number, got inf"),
        ({"clip-norm": math.nan}, "clip-norm is a finite number, got nan"),
        ({"proximal-mu": -1.0}, "proximal-mu is at least 0, got -1.0"),
    ],
)
def test_a_bad_value_is_one_line_that_names_it(config: dict[str, Any], line: str) -> None:
    with pytest.raises(SettingError) as error:
        read(Training, config)
    assert str(error.value) == line


TORCHS = {
    "constant": lambda o, rounds: torch.optim.lr_scheduler.ConstantLR(o, factor=1.0),
    "linear": lambda o, rounds: torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.2, total_iters=rounds),
    "step": lambda o, rounds: torch.optim.lr_scheduler.StepLR(o, 3, 0.6),
    "exponential": lambda o, rounds: torch.optim.lr_scheduler.ExponentialLR(o, 0.6),
    "cosine": lambda o, rounds: torch.optim.lr_scheduler.CosineAnnealingLR(o, rounds, eta_min=0.2 * 0.5),
}


def rates(training: Training, rounds: int) -> list[float]:
    return [learning_rate(training, number, rounds) for number in range(1, rounds + 1)]


@pytest.mark.parametrize("warm", [0, 4])
@pytest.mark.parametrize("name", SCHEDULES)
def test_after_its_warm_up_a_schedule_is_torchs(name: str, warm: int) -> None:
    rounds = 12
    training = Training(lr=0.5, schedule=name, warmup_rounds=warm, lr_end=0.2, lr_step=3, lr_decay=0.6)
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
    training = Training(lr=0.5, schedule=name, warmup_rounds=warm, lr_end=end)
    found = rates(training, rounds)
    assert all(0 < rate <= 0.5 for rate in found)
    rising = found[: warm + 1]
    assert rising == pytest.approx([0.5 * number / (warm + 1) for number in range(1, len(rising) + 1)])
    assert found[warm:] == sorted(found[warm:], reverse=True)
