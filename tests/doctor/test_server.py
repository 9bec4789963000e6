"""A server's doctor: keys, certificates, port and devices, each fault found where it is."""

import json
import os
import shutil
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from fedpress.common import diagnostics
from fedpress.common.diagnostics import Finding
from fedpress.server.deploy.doctor import inspect_server
from fedpress.server.keys import authority, init, issue, renew, revoke

from .conftest import Answers, serving

Found = dict[str, Finding]


@pytest.fixture(autouse=True)
def a_device(keys: Path, tmp_path: Path) -> None:
    issue(keys, "pi-1", tmp_path / "pi-1.enrol")


def inspect(keys: Path, host: str = "127.0.0.1", port: int = 0) -> Found:
    found = list(inspect_server(keys, host=host, port=port, out=keys.parent))
    for finding in found:
        assert bool(finding.advice) == (finding.status != "ok"), finding
        assert "\n" not in finding.seen + finding.advice
    return {finding.check: finding for finding in found}


def bad(found: Found) -> dict[str, str]:
    return {name: finding.status for name, finding in found.items() if finding.status != "ok"}


def test_where_all_is_well_nothing_is_said_to_do(keys: Path) -> None:
    found = inspect(keys)
    assert bad(found) == {}
    assert list(found) == [
        *("python", "fedpress", "flwr", "torch", "disk", "memory", "keys", "certificate", "certificate's date"),
        *("authority's date", "hosts", "port", "devices"),
    ]
    assert "1 let in" in found["devices"].seen


@pytest.mark.parametrize("name", ["ca.pem", "ca.key", "server.pem", "server.key", "devices"])
def test_what_is_missing_is_named(keys: Path, name: str) -> None:
    path = keys / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    found = inspect(keys)
    assert found["keys"].status == "failure"
    assert str(path) in found["keys"].seen


@pytest.mark.parametrize("name", [".", "ca.key", "server.key", "devices"])
@pytest.mark.parametrize("mode", [0o750, 0o604])
def test_what_is_open_to_others_is_named(keys: Path, name: str, mode: int) -> None:
    (keys / name).chmod(mode)
    found = inspect(keys)
    assert bad(found) == {"keys": "failure"}
    assert f"mode {mode:04o}" in found["keys"].seen
    assert f"chmod {authority.MODES[name]:o}" in found["keys"].advice


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    found = inspect(tmp_path / "none")
    assert (found["keys"].status, found["certificate"].status) == ("failure", "failure")
    assert "keys init" in found["keys"].advice


def _others(keys: Path) -> None:
    init(keys.parent / "others", ["localhost"])
    for name in ("server.pem", "server.key"):
        shutil.copy(keys.parent / "others" / name, keys / name)


def _key(keys: Path) -> None:
    init(keys.parent / "others", ["localhost"])
    shutil.copy(keys.parent / "others" / "server.key", keys / "server.key")


def _garbage(keys: Path) -> None:
    (keys / "server.pem").write_text("garbage")


@pytest.mark.parametrize(
    ("harm", "said"), [(_others, "not signed by"), (_key, "not for the key"), (_garbage, "no certificate")]
)
def test_a_certificate_that_does_not_fit(keys: Path, harm: Callable[[Path], None], said: str) -> None:
    harm(keys)
    found = inspect(keys)
    assert bad(found) == {"certificate": "failure"}
    assert said in found["certificate"].seen


@pytest.mark.parametrize(("days", "status"), [(10, "warning"), (100, "ok")])
def test_a_certificate_that_ends_soon(keys: Path, days: int, status: str) -> None:
    renew(keys, days=days)
    assert inspect(keys)["certificate's date"].status == status


def test_a_certificate_that_has_ended(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authority, "_now", lambda: datetime.now(UTC) - timedelta(days=30))
    renew(keys, days=20)
    assert bad(inspect(keys)) == {"certificate's date": "failure"}


@pytest.mark.parametrize(
    ("hosts", "listens", "status"),
    [
        (["localhost", "127.0.0.1", "::1"], "127.0.0.1", "warning"),
        (["192.0.2.7"], "127.0.0.1", "ok"),
        (["192.0.2.7"], "0.0.0.0", "ok"),
        (["192.0.2.7"], "192.0.2.7", "ok"),
        (["192.0.2.7"], "192.0.2.8", "warning"),
    ],
)
def test_hosts(keys: Path, hosts: list[str], listens: str, status: str) -> None:
    renew(keys, hosts)
    assert inspect(keys, listens)["hosts"].status == status


def test_a_port_that_a_server_with_these_keys_has(keys: Path, tmp_path: Path) -> None:
    with serving(Answers(), keys) as port:
        found = inspect(keys, port=port)
    assert found["port"].status == "ok"
    assert "with these keys" in found["port"].seen


def test_a_port_that_another_has(keys: Path, tmp_path: Path) -> None:
    init(tmp_path / "others", ["localhost"])
    for others in (tmp_path / "others", None):
        with serving(Answers(), others) as port:
            found = inspect(keys, port=port)
        assert bad(found) == {"port": "failure"}
        assert f":{port}" in found["port"].advice


def test_an_address_that_is_not_this_machine_s(keys: Path) -> None:
    renew(keys, ["192.0.2.7"])
    assert inspect(keys, "192.0.2.7")["port"].status == "failure"


def test_devices(keys: Path, tmp_path: Path) -> None:
    issue(keys, "pi-2", tmp_path / "b", days=5)
    found = inspect(keys)
    assert bad(found) == {"devices": "warning"}
    assert found["devices"].seen.endswith(": pi-2")
    revoke(keys, "pi-2")
    assert bad(inspect(keys)) == {}
    revoke(keys, "pi-1")
    assert bad(inspect(keys)) == {"devices": "warning"}
    path = keys / "devices" / "pi-1.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "public_key": "none"}))
    failures = [f for f in inspect_server(keys, host="127.0.0.1", port=0, out=tmp_path) if f.status == "failure"]
    assert [str(path) in finding.seen for finding in failures] == [True]


def test_no_check_holds_a_port_afterwards(keys: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    inspect(keys, port=port)
    socket.create_server(("127.0.0.1", port)).close()


def test_disk_and_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert diagnostics.disk(tmp_path / "not" / "yet", 1, 2).status == "ok"
    assert diagnostics.disk(tmp_path, 1, 1e18).status == "warning"
    assert diagnostics.disk(tmp_path, 1e18, 1e18).status == "failure"
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "cannot be written" in diagnostics.disk(tmp_path, 1, 2).seen
    monkeypatch.undo()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=512e6))
    monkeypatch.setattr(diagnostics, "_GROUP", tmp_path)
    assert diagnostics.memory(1e6, 2e6) == Finding("memory", "ok", "512.0 MB free")
    for limit, status in (("max", "ok"), ("300000000", "warning"), ("201000000", "failure")):
        (tmp_path / "memory.max").write_text(limit)
        (tmp_path / "memory.current").write_text("200000000")
        assert diagnostics.memory(50e6, 200e6).status == status


def test_what_is_not_installed_is_a_failure() -> None:
    found = list(diagnostics.software("flwr", "no-such-distribution"))
    assert [finding.status for finding in found] == ["ok", "ok", "ok", "failure"]
