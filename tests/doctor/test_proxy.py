"""Proxies of the environment: followed to a server elsewhere, never to loopback, and named if they are in the way."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from fedpress.client.edge.doctor import inspect_device
from fedpress.common.diagnostics import Finding
from fedpress.common.errors import ServerUnavailableError, SettingError
from fedpress.common.proxy import direct_to_loopback, find_proxy
from fedpress.flower.fleet_api import FleetApi

from .conftest import Answers, serving

VARIABLES = [
    spelled for name in ("http", "https", "all", "no") for spelled in (f"{name}_proxy", f"{name.upper()}_PROXY")
]
DEAD = "http://127.0.0.1:9"
HOST = "fed.example.org"  # which the keys are for, and which is only known to the proxy


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@contextmanager
def proxy(refuse: bool = False) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Yield a proxy's address, and what it is asked for: it connects to loopback, whichever name it is given."""
    asked: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            asked.append((self.path, self.headers.get("Proxy-Authorization", "")))
            self.close_connection = True
            if refuse:
                self.send_error(403, "Forbidden")
                return
            with socket.create_connection(("127.0.0.1", int(self.path.rpartition(":")[2]))) as server:
                self.send_response_only(200)
                self.end_headers()
                back = threading.Thread(target=copy, args=(server, self.connection))
                back.start()
                copy(self.connection, server)
                back.join()

        def log_message(self, format: str, *_: object) -> None:
            pass

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.daemon_threads = True
    thread = threading.Thread(target=made.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"127.0.0.1:{made.server_address[1]}", asked
    finally:
        made.shutdown()
        thread.join()
        made.server_close()


def copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while chunk := source.recv(65536):
            target.sendall(chunk)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def inspect(enrolment: Path, server: str) -> dict[str, Finding]:
    found = {finding.check: finding for finding in inspect_device(enrolment, state=enrolment.parent, server=server)}
    assert all(bool(finding.advice) == (finding.status != "ok") for finding in found.values())
    return found


@pytest.mark.parametrize(
    ("environment", "tls", "used"),
    [
        ({}, True, ""),
        ({"HTTPS_PROXY": "http://a:1"}, True, "HTTPS_PROXY"),
        ({"HTTPS_PROXY": "http://a:1"}, False, ""),
        ({"HTTP_PROXY": "http://a:1"}, False, "HTTP_PROXY"),
        ({"HTTP_PROXY": "http://a:1"}, True, ""),
        ({"ALL_PROXY": "a:1"}, True, "ALL_PROXY"),
        ({"all_proxy": "http://a:1", "https_proxy": "http://b:1"}, True, "https_proxy"),
        ({"https_proxy": "http://a:1", "HTTPS_PROXY": "http://b:1"}, True, "https_proxy"),
        ({"https_proxy": "", "HTTPS_PROXY": "http://b:1"}, True, "HTTPS_PROXY"),
        *(
            ({"https_proxy": "http://a:1", "no_proxy": value}, True, "")
            for value in ("*", HOST, ".example.org", "x, org")
        ),
        ({"https_proxy": "http://a:1", "NO_PROXY": f"{HOST}:9443"}, True, ""),
        ({"https_proxy": "http://a:1", "NO_PROXY": f"{HOST}:1"}, True, "https_proxy"),
        ({"https_proxy": "http://a:1", "NO_PROXY": "ample.org"}, True, "https_proxy"),
    ],
)
def test_which_proxy_is_used(
    environment: dict[str, str], tls: bool, used: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = find_proxy(HOST, 9443, tls=tls)
    assert (found.variable if found else "") == used
    for loopback in ("localhost", "127.0.0.1", "127.5.0.1", "::1"):
        assert find_proxy(loopback, 9443, tls=tls) is None


@pytest.mark.parametrize(
    ("host", "listed"), [("10.1.2.3", "10.0.0.0/8"), ("fd00::5", "[fd00::5]"), ("fd00::5", "fd00::/8")]
)
def test_addresses_are_bypassed_by_ranges(host: str, listed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", DEAD)
    assert find_proxy(host, 9443, tls=True) is not None
    monkeypatch.setenv("NO_PROXY", f"elsewhere, {listed}")
    assert find_proxy(host, 9443, tls=True) is None


@pytest.mark.parametrize("value", ["socks5://proxy:1080", "https://proxy:3128", "ftp://x", "http://", "http://a:port"])
def test_a_proxy_that_cannot_be_used_is_named(value: str, enrolment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", value)
    with pytest.raises(SettingError, match="ALL_PROXY"):
        find_proxy(HOST, 9443, tls=True)
    found = inspect(enrolment, f"{HOST}:9443")
    assert found["proxy"].status == "failure"
    assert "ALL_PROXY" in found["proxy"].seen


@pytest.mark.parametrize("value", [DEAD, "socks5://127.0.0.1:9", "nonsense://x", "http://[::1", "127.0.0.1:9"])
@pytest.mark.parametrize("bypass", ["", "*", "fd00::/8,10.0.0.0/8", " example.org ,::1"])
def test_what_a_server_starts_reaches_loopback_directly(
    value: str, bypass: str, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, bypass if name.lower() == "no_proxy" else value)
    for name, changed in direct_to_loopback(os.environ).items():
        monkeypatch.setenv(name, changed)
    with serving(Answers(), None) as port, httpx.Client() as client:
        for host in ("127.0.0.1", "localhost"):
            assert client.get(f"http://{host}:{port}/").status_code == 200


@pytest.mark.parametrize("name", VARIABLES[:6])
def test_a_device_reaches_loopback_in_spite_of_a_proxy(
    name: str, keys: Path, enrolment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, DEAD)
    with serving(Answers(), keys) as port:
        found = inspect(enrolment, f"localhost:{port}")
    assert {finding.status for finding in found.values()} == {"ok"}
    assert found["key"].status == "ok"


def test_a_device_follows_a_proxy_to_a_server_elsewhere(
    keys: Path, enrolment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(Answers(), keys) as port, proxy() as (address, asked):
        monkeypatch.setenv("https_proxy", f"http://me:secret@{address}")
        found = inspect(enrolment, f"{HOST}:{port}")
    assert {finding.status for finding in found.values()} == {"ok"}
    assert "https_proxy" in found["proxy"].seen
    assert {server for server, _ in asked} == {f"{HOST}:{port}"}
    assert all(login.startswith("Basic ") for _, login in asked)
    assert not any("secret" in finding.seen for finding in found.values())


def test_a_proxy_that_is_in_the_way_is_named(keys: Path, enrolment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with proxy(refuse=True) as (address, _):
        for url in (f"http://{address}", DEAD):
            monkeypatch.setenv("HTTPS_PROXY", url)
            found = inspect(enrolment, f"{HOST}:9443")
            assert found["reachable"].status == "failure"
            assert "HTTPS_PROXY" in found["reachable"].seen
            assert "no_proxy" in found["reachable"].advice
            key = ec.generate_private_key(ec.SECP384R1())
            fleet = FleetApi(f"{HOST}:9443", key, (keys / "ca.pem").read_bytes(), heartbeat=30.0)
            with pytest.raises(ServerUnavailableError, match="HTTPS_PROXY"):
                fleet.connect()
            fleet.close()
