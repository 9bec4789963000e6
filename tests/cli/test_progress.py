"""The terminal shows the numbers that a run's settings are about."""

from typing import Any

import pytest

from fedpress.cli.console.progress import close, row_line
from fedpress.settings import RunSettings
from fedpress.simulations.settings import resolve

NODES = {"nodes": 4, "mean": 0.7123, "worst": 0.3456, "p10": 0.4567, "median": 0.7, "p90": 0.9}
ROW = {
    "round": 1,
    "accuracy": 0.5,
    "loss": 1.5,
    "train_loss": 0.8765,
    "uplink_bytes": 1000,
    "downlink_bytes": 2000,
    "uplink_message_bytes": 1230,
    "downlink_message_bytes": 2340,
    "clients": 5,
    "failures": 0,
    "seconds": 1.0,
}


def result_of(settings: RunSettings, **last: Any) -> dict[str, Any]:
    totals = {key: value for key, value in ROW.items() if key.endswith("_bytes")}
    totals |= {"uplink_ratio": 4.0, "downlink_ratio": 4.0, "ratio": 4.0, "seconds": 1.0}
    final = {key: last.pop(key) for key in ("nodes", "groups") if key in last}
    return {
        "config": settings.to_result(),
        "rounds": [{**ROW, **last}],
        "totals": totals,
        "final": {"accuracy": 0.5, "loss": 1.5, **final},
    }


@pytest.mark.parametrize(
    ("given", "last", "shown"),
    [
        ({"target": 0.9}, {"pruned": 0.4321}, ["43.2%"]),
        ({"distillation.enabled": True}, {"distilled": True}, ["accepted"]),
        ({"distillation.enabled": True}, {"distilled": False}, ["rejected"]),
        ({"tensors": ["head"], "fraction-evaluate": 1.0, "holdout": 0.2}, {"nodes_accuracy": NODES}, ["0.3456"]),
        ({"tensors": ["head"]}, {}, ["fraction-evaluate"]),
        ({"fraction-evaluate": 1.0, "holdout": 0.2}, {"nodes_accuracy": NODES}, ["0.7123", "0.4567", "0.3456"]),
        (
            {"groups": [{"width": 0.5, "share": 0.5}, {"width": 1.0, "share": 0.5}]},
            {"groups": {"0.5": {"accuracy": 0.4444}, "1": {"accuracy": 0.5555}}},
            ["0.4444", "0.5555"],
        ),
    ],
)
def test_what_the_settings_ask_for_is_in_each_round_and_at_the_end(
    given: dict[str, Any], last: dict[str, Any], shown: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    settings = resolve({"rounds": 20, **given})
    line = row_line({**ROW, **last}, settings)
    close(result_of(settings, **last), as_json=False)
    end = capsys.readouterr().out
    for text in shown:
        assert text in line
        assert text in end


def test_fine_tuned_nodes_are_shown_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    settings = resolve({"finetune-epochs": 1, "holdout": 0.2})
    close(result_of(settings, nodes={"before": NODES, "after": {**NODES, "worst": 0.2222}}), as_json=False)
    end = capsys.readouterr().out
    assert "0.3456" in end
    assert "0.2222" in end


def test_training_loss_and_bytes_of_messages_stand_beside_those_of_frames(capsys: pytest.CaptureFixture[str]) -> None:
    settings = resolve({})
    line = row_line(ROW, settings)
    close(result_of(settings), as_json=False)
    end = capsys.readouterr().out
    for text in ("0.8765", "1.23 kB", "2.34 kB", "1 kB", "2 kB"):
        assert text in line
        assert text in end


def test_frames_larger_than_float32_are_pointed_out(capsys: pytest.CaptureFixture[str]) -> None:
    settings = resolve({"up": "qsgd(4) | ans"})
    small = result_of(settings)
    close(small, as_json=False)
    assert "uplink frames" not in capsys.readouterr().out
    small["totals"]["uplink_ratio"] = 0.5
    close(small, as_json=False)
    _, line = capsys.readouterr().out.replace("\n", " ").split("uplink frames")
    assert "2.00" in line
    assert "qsgd(4) | ans" in line


def test_float32_itself_is_not_called_large(capsys: pytest.CaptureFixture[str]) -> None:
    floats = result_of(resolve({"up": "none", "down": "none"}))
    floats["totals"] |= {"uplink_ratio": 0.99, "downlink_ratio": 0.99}
    close(floats, as_json=False)
    assert "frames are" not in capsys.readouterr().out
