"""SuperLink is kept in step with the devices' folder."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from fedpress.common.errors import FedpressError
from fedpress.flower.control_api import ControlApi, RegisteredNode, SuperLinkUnavailableError
from fedpress.server.deploy.device_registry import Devices, NodeRegistrar
from fedpress.server.keys import revoke

from .conftest import Issued


class Registry:
    """What SuperLink does with keys: each has an id, and one that was shut out does not come back."""

    def __init__(self) -> None:
        self.ids: dict[bytes, int] = {}
        self.used: set[bytes] = set()
        self.away = False

    def nodes(self) -> list[RegisteredNode]:
        return [RegisteredNode(number, pem, "online", 0.0) for pem, number in self.ids.items()]

    def register(self, name: str, pem: bytes) -> int:
        if self.away:
            raise SuperLinkUnavailableError("gone")
        if pem in self.used:
            raise FedpressError(f"{name} cannot be registered: its key is in use")
        self.used.add(pem)
        self.ids[pem] = 2**63 + len(self.used)
        return self.ids[pem]

    def unregister(self, node: int) -> None:
        self.ids = {pem: number for pem, number in self.ids.items() if number != node}


@pytest.fixture
def registry() -> Registry:
    return Registry()


def test_keys_come_and_go_while_it_runs(
    registry: Registry, keys: Path, enrol: Callable[..., Issued], tmp_path: Path
) -> None:
    path = tmp_path / "nodes.json"
    enrolment, control = NodeRegistrar(Devices(keys), path), cast("ControlApi", registry)
    enrolment.step(control)
    assert json.loads(path.read_bytes()) == {}
    first = enrol("a")
    enrol("b")
    enrolment.step(control)
    ids = json.loads(path.read_bytes())
    assert set(ids) == {"a", "b"}
    assert registry.ids[first.device.pem] == ids["a"]
    before = path.stat().st_mtime_ns
    enrolment.step(control)
    assert path.stat().st_mtime_ns == before, "it is written when it changes"
    revoke(keys, "a")
    enrolment.step(control)
    assert first.device.pem not in registry.ids
    assert json.loads(path.read_bytes()) == {"b": ids["b"]}
    (tmp_path / "a.enrol").unlink()
    second = enrol("a")
    enrolment.step(control)
    assert json.loads(path.read_bytes())["a"] == registry.ids[second.device.pem] != ids["a"]


def test_a_restart_finds_the_same_ids(
    registry: Registry, keys: Path, enrol: Callable[..., Issued], tmp_path: Path
) -> None:
    enrol("a")
    for name in ("one.json", "two.json"):
        NodeRegistrar(Devices(keys), tmp_path / name).step(cast("ControlApi", registry))
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()


def test_a_key_that_is_not_taken_holds_up_nobody(
    registry: Registry, keys: Path, enrol: Callable[..., Issued], tmp_path: Path
) -> None:
    registry.used.add(enrol("a").device.pem)
    enrol("b")
    enrolment = NodeRegistrar(Devices(keys), tmp_path / "nodes.json")
    enrolment.step(cast("ControlApi", registry))
    assert set(enrolment.ids) == {"b"}
    registry.away = True
    enrol("c")
    with pytest.raises(SuperLinkUnavailableError):
        enrolment.step(cast("ControlApi", registry))
