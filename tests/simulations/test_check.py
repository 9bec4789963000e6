"""What a run's data and models say against its settings is said before anything is written."""

from pathlib import Path

import pytest
from torch import nn

from fedpress.common.errors import SettingError
from fedpress.simulations.run import run
from fedpress.simulations.settings import resolve
from fedpress.simulations.workloads.digits import Digits

GROUPS = "1:0.5,0.25:0.5"


@pytest.mark.parametrize(
    "settings",
    [
        {"sparsify": "gradual", "distil": True},
        {"personal": "head", "distil": True},
        {"personal": "hed"},
        {"exclude": "*"},
        {"sparsify": "gradual", "groups": GROUPS},
        {"distil-tune": 5, "down": "none"},
    ],
)
def test_settings_that_do_not_go_together_leave_no_folder(settings, tmp_path: Path) -> None:
    with pytest.raises(SettingError) as caught:
        run(resolve({"rounds": 30, "distil-proxy": 100, "distil-guard": 50, **settings, "out": str(tmp_path / "run")}))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_model_that_does_not_run_in_its_group_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def odd(dropout: float) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(65, 10))

    monkeypatch.setattr(Digits, "models", {**Digits.models, "odd": odd})
    with pytest.raises(SettingError, match=r"Sequential of group odd does not run on the data: .*65"):
        run(resolve({"groups": "mlp:0.5,odd:0.5", "seed": 12345, "out": str(tmp_path / "run")}))
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
