"""A deployed run with each of the settings that change what travels: real servers, real devices."""

import json
from pathlib import Path

import pytest

from .test_server import Field, site  # noqa: F401  a fixture

DISTIL = ("distillation.enabled=true", "proxy-examples=200", "guard-examples=100", "distillation.steps=20")


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        (*DISTIL, "teacher-weights=classes", "criterion=clients", "holdout=0.2"),
        (*DISTIL, "groups=[{width=1.0}, {width=0.25}]"),
        ("tensors=head", "finetune-epochs=1", "holdout=0.2"),
        ("sparsity.target=0.5", "last-round=2"),
    ],
    ids=["distil", "fleet", "personal", "sparse"],
)
def test_devices_take_part(settings: tuple[str, ...], site: Field, tmp_path: Path) -> None:  # noqa: F811
    server = site.serve(*(word for setting in settings for word in ("--set", setting)))
    (tmp_path / "small.toml").write_text("[node]\nwidth = 0.25\n")
    site.start("client", "node0.enrol", "--state", "state-node0", "--config", "small.toml")
    site.join("node1")
    said = site.finish(server)
    result = json.loads((site.out / "result.json").read_bytes())
    assert [row["clients"] for row in result["rounds"]] == [2, 2], said
    assert result["final"]["accuracy"] > result["initial"]["accuracy"]
    assert "reply is refused" not in said
