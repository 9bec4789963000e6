"""Runs of fleets on the digits, small enough to be many."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedpress.extensions.mixed_fleet.settings import MixedFleetSettings
from fedpress.settings import RunSettings
from fedpress.simulations.run import run
from fedpress.simulations.settings import resolve

SETTINGS = {"rounds": 3, "per-round": 6, "clients": 20, "seed": 3, "local-epochs": 2, "workers": 2}
SIZES = {"groups": [{"width": 1.0, "share": 0.5}, {"width": 0.25, "share": 0.5}]}
STATELESS = {"stateless": True, "shared-initial": False, "up": "lowrank(nmse=0.1) | ans"}
VARIES = ("seconds", "uplink_message_bytes", "downlink_message_bytes")


class Finished:
    """A run that is over."""

    def __init__(self, folder: Path, result: dict[str, Any]) -> None:
        self.folder = folder
        self.result = result
        self.model = (folder / "model.safetensors").read_bytes()
        # Without what differs from run to run.
        self.rows = [{key: value for key, value in row.items() if key not in VARIES} for row in result["rounds"]]

    @property
    def visits(self) -> list[dict[str, str]]:
        with (self.folder / "clients.csv").open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    def group(self, node: str) -> str:
        settings = RunSettings.from_config(self.result["config"])
        groups = settings.extension(MixedFleetSettings)
        return groups.assign(int(node), settings.clients, settings.run.seed).name


@pytest.fixture
def federate(tmp_path: Path) -> Callable[..., Finished]:
    def go(name: str, **settings: Any) -> Finished:
        given = {**SETTINGS, "out": str(tmp_path / name)}
        given |= {key.replace("_", "-"): value for key, value in settings.items()}
        return Finished(tmp_path / name, run(resolve(given)))

    return go
