"""Real devices of two sizes: each says what it can run, and gets that."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedpress.common.errors import SettingError
from fedpress.server.deploy.settings import resolve

from .test_server import Field, site  # noqa: F401  a fixture

TASK = {"task": "fedpress.simulations.workloads:task", "rounds": 2}


@pytest.mark.slow
def test_a_device_gets_the_width_that_it_says(site: Field, tmp_path: Path) -> None:  # noqa: F811
    server = site.serve("--set", "groups=[{width=1.0}, {width=0.25}]")
    (tmp_path / "big.toml").write_text("[node]\nwidth = 1.0\n")
    site.start("client", "node0.enrol", "--state", "state-node0", "--config", "big.toml")
    site.join("node1")  # which says nothing of its size
    site.finish(server)
    result = json.loads((site.out / "result.json").read_bytes())
    assert set(result["rounds"][-1]["groups"]) == {"1", "0.25"}
    assert all(row["clients"] == 2 for row in result["rounds"])
    with (site.out / "clients.csv").open(encoding="utf-8", newline="") as file:
        visits = list(csv.DictReader(file))
    sent = {node: np.mean([int(v["up_frame"]) for v in visits if v["node"] == node]) for node in ("node0", "node1")}
    assert sent["node1"] < sent["node0"]
    whole, small = (load_file(site.out / f"model-{name}.safetensors") for name in ("1", "0.25"))
    assert small["1.weight"].shape == (32, 64)
    assert whole["1.weight"].shape == (128, 64)


def test_shares_are_for_virtual_nodes() -> None:
    with pytest.raises(SettingError, match="share must be 0 for groups of devices"):
        resolve({**TASK, "groups": [{"share": 0.5}, {"width": 0.25, "share": 0.5}]})
    assert resolve({**TASK, "groups": [{"width": 1.0}, {"width": 0.25}]}).deployed
