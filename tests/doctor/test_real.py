"""Doctor against the real gate and a real SuperLink: the life of a key, and asking changes nothing."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedpress.client.edge.doctor import inspect_device
from fedpress.server.deploy.authentication import Admission
from fedpress.server.deploy.device_registry import NODES, Devices, NodeRegistrar
from fedpress.server.deploy.fleet_proxy import Gate
from fedpress.server.deploy.listener import Listener
from fedpress.server.deploy.superlink import SuperLink
from fedpress.server.keys import issue, revoke


@pytest.fixture
def link(tmp_path: Path) -> Iterator[SuperLink]:
    (tmp_path / "out").mkdir()
    link = SuperLink(tmp_path / "out", authenticated=True)
    try:
        link.start()
        yield link
    finally:
        link.stop()


@pytest.mark.slow
def test_a_key_before_it_is_known_while_it_is_and_when_it_is_revoked(
    keys: Path, tmp_path: Path, link: SuperLink
) -> None:
    devices = Devices(keys)
    enrolment = NodeRegistrar(devices, tmp_path / "out" / NODES)
    context = ssl.create_default_context(cadata=link.root.decode())
    gate = Gate(f"https://{link.address}", context, Admission(devices))
    listener = Listener(gate, "127.0.0.1", 0, (keys / "server.pem", keys / "server.key"))
    listener.start()
    try:
        with link.control() as control:
            devices.refresh()
            issue(keys, "pi-1", tmp_path / "pi-1.enrol", server=f"localhost:{listener.port}")

            def key() -> tuple[str, str]:
                *others, last = inspect_device(tmp_path / "pi-1.enrol", state=tmp_path)
                assert {finding.status for finding in others} == {"ok"}
                assert last.check == "key"
                return last.status, last.seen

            assert key() == ("failure", "the server does not take this device's key: this key is not enrolled here")
            devices.refresh()
            assert key()[0] == "warning"
            enrolment.step(control)
            assert key() == key() == ("ok", "the server takes this device's key")
            (node,) = control.nodes()
            assert node.status == "registered"  # and not online: it was neither activated nor deactivated
            revoke(keys, "pi-1")
            enrolment.step(control)
            status, seen = key()
            assert status == "failure"
            assert "revoked" in seen
    finally:
        listener.stop()
