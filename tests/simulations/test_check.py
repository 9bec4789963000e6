"""What a run's data and models say against its settings is said before anything is written."""

from pathlib import Path

import pytest
from torch import nn

from fedpress.common.errors import SettingError
from fedpress.simulations.run import run
from fedpress.simulations.settings import resolve
from fedpress.simulations.workloads.digits import Digits

GROUPS = [{"share": 0.5}, {"width": 0.25, "share": 0.5}]


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"target": 0.8, "distillation.enabled": True}, "distillation needs .* sparsity"),
        ({"tensors": ["head"], "distillation.enabled": True}, "distillation needs .* personal_layers"),
        ({"tensors": ["hed"]}, "tensors must .*'hed'"),
        ({"exclude": "*"}, "exclude must leave some tensors"),
        ({"target": 0.8, "groups": GROUPS}, "sparsity needs .* mixed_fleet"),
        ({"tune-steps": 5, "down": "none"}, "distillation needs .* deltas.* down"),
    ],
)
def test_settings_that_do_not_go_together_leave_no_folder(
    settings: dict[str, object], why: str, tmp_path: Path
) -> None:
    small = {"rounds": 30, "proxy-examples": 100, "guard-examples": 50}
    with pytest.raises(SettingError, match=why) as caught:
        run(resolve({**small, **settings, "out": str(tmp_path / "run")}))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_model_that_does_not_run_in_its_group_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def odd(dropout: float) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(65, 10))

    monkeypatch.setattr(Digits, "models", {**Digits.models, "odd": odd})
    with pytest.raises(SettingError, match=r"Sequential of group odd does not run on the data: .*65"):
        run(
            resolve(
                {
                    "groups": [{"model": "mlp", "share": 0.5}, {"model": "odd", "share": 0.5}],
                    "seed": 12345,
                    "out": str(tmp_path / "run"),
                }
            )
        )
    assert not (tmp_path / "run").exists()


def test_a_model_that_cannot_be_narrowed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The linear layer in the middle reads places and not channels, of which there happen to be 8 for each.
    def odd(dropout: float) -> nn.Module:
        convolution, linear = nn.Conv2d(1, 8, 3, padding=1), nn.Linear(64, 16)
        return nn.Sequential(convolution, nn.Flatten(2), linear, nn.Flatten(), nn.Linear(128, 10))

    monkeypatch.setattr(Digits, "models", {"odd": odd})
    with pytest.raises(SettingError, match="Sequential cannot be narrowed: 2 reads 64 values, of 8 channels on"):
        run(resolve({"groups": GROUPS, "seed": 12345, "out": str(tmp_path / "run")}))
    assert not (tmp_path / "run").exists()
