"""What the gate lets through, and what it does not: before SuperLink hears of it, and at no cost."""

import asyncio
import base64
import contextlib
import gc
import logging
import socket
import ssl
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from flwr.superlink.routers.fleet.router import router

from fedpress.common.checked_files import read_json, write_json
from fedpress.flower.control_api import PUBLIC_KEY, SIGNATURE, TIMESTAMP
from fedpress.flower.signal_file import SignalFile
from fedpress.server.deploy.authentication import Admission, Refused
from fedpress.server.deploy.fleet_proxy import CAUSE, OPEN_FLEET, PATH, Gate
from fedpress.server.deploy.listener import Listener
from fedpress.server.keys import init, revoke
from fedpress.settings.deployment import MIN_BODY

from .conftest import DAY, Issued, Site, sign

PULL, PUSH = PATH + "pull-messages", PATH + "push-messages"
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973


@pytest.fixture
def device(site: Site, enrol: Callable[..., Issued]) -> Issued:
    issued = enrol("fridge")
    site.devices.refresh()
    return issued


def refused(site: Site, headers: dict[str, str], path: str = PULL, content: bytes = b"x") -> str:
    """Why a request is refused; nothing of it reached what is behind the gate."""
    before = len(site.behind.seen)
    answer = site.post(path, headers, content)
    assert answer.status_code in (401, 404, 413)
    assert len(site.behind.seen) == before
    assert "\n" not in answer.json()["detail"]
    return answer.headers[CAUSE]


def test_what_is_signed_gets_through_unchanged(site: Site, device: Issued) -> None:
    for size in (0, 1, 70_000, 5 << 20):
        body = bytes(range(256)) * (size // 256) + b"y" * (size % 256)
        headers = {**device.sign(), "content-type": "application/protobuf", "flwr-package-version": "1"}
        answer = site.post(PUSH, headers, body)
        assert (answer.status_code, answer.content) == (200, body)
        path, length, seen = site.behind.seen[-1]
        assert (path, length) == (PUSH, size)
        assert {key: seen[key] for key in headers} == headers
    traffic = site.gate.traffic["fridge"]
    assert traffic.requests == 4
    assert traffic.up == traffic.down == sum(length for _, length, _ in site.behind.seen)


def test_the_names_of_the_fleet_s_api_get_through_and_no_others(site: Site, device: Issued) -> None:
    routes = {route.path.removeprefix(PATH) for route in router.routes}  # type: ignore[attr-defined]
    assert routes == set(OPEN_FLEET), "flwr 1.41 has these"
    for name in routes - {"register-node", "unregister-node"}:
        assert site.post(PATH + name, device.sign()).status_code == 200
    before = len(site.behind.seen)
    others = ["register-node", "unregister-node", "", "pull-messages/", "../control/start-run", "pull-messages/../x"]
    for path in (
        "/",
        "/docs",
        "/health",
        "/v1/control/start-run",
        "/v1/runtime/acquire-task",
        *(PATH + o for o in others),
    ):
        for headers in ({}, device.sign()):
            assert site.post(path, headers).status_code == 404
    with httpx.Client(verify=site.context, trust_env=False) as client:
        for method in ("GET", "PUT", "DELETE", "OPTIONS"):
            assert client.request(method, site.url + PULL, headers=device.sign()).status_code == 404
    assert len(site.behind.seen) == before


@pytest.mark.parametrize(
    "raw", ["/v1/fleet/%2e%2e/control/start-run", "/v1/fleet/..%2fcontrol/start-run", "//v1/control/start-run"]
)
def test_no_spelling_of_a_path_leads_around_the_gate(site: Site, device: Issued, raw: str) -> None:
    plain = socket.create_connection(("127.0.0.1", site.port), timeout=10)
    with site.context.wrap_socket(plain, server_hostname="127.0.0.1") as link:
        lines = [
            f"POST {raw} HTTP/1.1",
            "host: x",
            "content-length: 0",
            *(f"{k}: {v}" for k, v in device.sign().items()),
        ]
        link.sendall("\r\n".join([*lines, "", ""]).encode())
        assert link.recv(1000).split()[1] == b"404"
    assert not site.behind.seen


def test_it_says_what_runs_here_and_what_time_it_is(site: Site) -> None:
    with httpx.Client(verify=site.context, trust_env=False) as client:
        told = client.get(site.url + "/v1/fedpress").json()
    assert told.keys() == {"fedpress", "flwr", "time"}
    assert abs(datetime.fromisoformat(told["time"]) - datetime.now(UTC)) < timedelta(minutes=1)


def test_keys_that_are_not_enrolled_do_not_get_through(site: Site, device: Issued, keys: Path) -> None:
    assert refused(site, {}) == "unsigned"
    assert refused(site, sign(ec.generate_private_key(ec.SECP384R1()))) == "unknown"
    assert site.post(PULL, device.sign()).status_code == 200
    revoke(keys, "fridge")
    site.devices.refresh()
    assert refused(site, device.sign()) == "revoked"


def test_a_key_that_is_over_does_not_get_through(site: Site, keys: Path, enrol: Callable[..., Issued]) -> None:
    device = enrol("toaster")
    path = keys / "devices" / "toaster.json"
    write_json(path, {**read_json(path), "expires": (datetime.now(UTC) - DAY).isoformat()})
    site.devices.refresh()
    assert refused(site, device.sign()) == "expired"


def test_a_broken_record_shuts_out_nobody_else(site: Site, device: Issued, keys: Path) -> None:
    (keys / "devices" / "broken.json").write_text("{")
    site.devices.refresh()
    assert site.post(PULL, device.sign()).status_code == 200


@pytest.mark.parametrize(("off", "word"), [(DAY, "ahead of"), (-DAY, "behind")])
def test_a_clock_a_day_off_is_told_so(site: Site, device: Issued, off: timedelta, word: str) -> None:
    answer = site.post(PULL, device.sign(datetime.now(UTC) + off))
    assert (answer.status_code, answer.headers[CAUSE]) == (401, "stale")
    assert f"s {word} the server's" in answer.json()["detail"]
    for moment in ("", "yesterday", "2026-01-01T00:00:00"):
        assert refused(site, {**device.sign(), TIMESTAMP: moment}) == "stale"


def test_forged_signatures_do_not_get_through(site: Site, device: Issued, enrol: Callable[..., Issued]) -> None:
    other = enrol("kettle")
    site.devices.refresh()
    assert refused(site, {**device.sign(), PUBLIC_KEY: other.sign()[PUBLIC_KEY]}) == "signature"
    for signature in ("", "!", "AAAA", base64.b64encode(b"0" * 100).decode()):
        assert refused(site, {**device.sign(), SIGNATURE: signature}) == "signature"


def test_a_request_passes_once(site: Site, device: Issued) -> None:
    headers = device.sign()
    assert site.post(PULL, headers, b"a").status_code == 200
    for path, body in ((PULL, b"a"), (PULL, b"b"), (PATH + "push-messages", b"a")):
        assert refused(site, headers, path, body) == "replay"
    first, second = decode_dss_signature(base64.b64decode(headers[SIGNATURE]))
    turned = encode_dss_signature(first, ORDER - second)  # as good a signature, by whoever knows the first
    assert refused(site, {**headers, SIGNATURE: base64.b64encode(turned).decode()}) == "replay"


def test_replays_are_forgotten_no_sooner_than_they_are_stale(
    site: Site, device: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("fedpress.server.deploy.authentication.time.monotonic", lambda: now[0])
    admission = Admission(site.devices)
    headers = device.sign()
    admission.admit(headers)
    for _ in range(3):
        with pytest.raises(Refused, match="made before"):
            admission.admit(headers)
        now[0] += 100
    for _ in range(2):
        now[0] += 400
        admission.admit(device.sign())
    assert len(admission._new.marks) + len(admission._old) == 2


def test_a_message_whose_way_was_cut_is_handed_out_again(
    site: Site, device: Issued, enrol: Callable[..., Issued]
) -> None:
    other = enrol("kettle")
    site.devices.refresh()
    assert site.post(PULL, device.sign(), b"a message").content == b"a message"  # what is behind sends it back
    for _ in range(2):  # the node asks as if it had got nothing
        site.post(PATH + "send-node-heartbeat", device.sign())
        assert site.post(PULL, device.sign(), b"").content == b"a message"
    assert site.post(PULL, other.sign(), b"").content == b""
    site.post(PATH + "pull-object", device.sign())  # now it shows that it has it
    assert site.post(PULL, device.sign(), b"").content == b""


def test_nobody_asks_superlink_in_vain(site: Site, device: Issued, tmp_path: Path) -> None:
    site.gate.sent, site.gate.arrived = SignalFile(tmp_path / "sent"), SignalFile(tmp_path / "arrived")
    site.gate.sent.send()
    for _ in range(3):
        assert site.post(PULL, device.sign()).content == b""
    assert len(site.behind.seen) == 1
    site.gate.sent.send()  # a message went out: all ask again
    assert site.post(PULL, device.sign(), b"a message").content == b"a message"
    assert not site.gate.arrived.last
    site.post(PATH + "push-object", device.sign())
    assert site.gate.arrived.last
    assert len(site.behind.seen) == 3


def test_a_body_that_is_too_long_is_refused_unread(site: Site, device: Issued) -> None:
    lines = [f"POST {PULL} HTTP/1.1", "host: x", f"content-length: {MIN_BODY + 1}"]
    plain = socket.create_connection(("127.0.0.1", site.port), timeout=10)
    with site.context.wrap_socket(plain, server_hostname="127.0.0.1") as link:
        link.sendall("\r\n".join([*lines, *(f"{k}: {v}" for k, v in device.sign().items()), "", ""]).encode())
        assert link.recv(1000).split()[1] == b"413"
    assert not site.behind.seen


def test_a_body_that_turns_out_too_long_is_cut(site: Site, device: Issued) -> None:
    sent = 0

    def endless() -> "object":
        nonlocal sent
        while sent < 100 * MIN_BODY:
            sent += 1 << 16
            yield bytes(1 << 16)

    with httpx.Client(verify=site.context, trust_env=False) as client:
        try:
            answer = client.post(site.url + PULL, content=endless(), headers=device.sign())  # type: ignore[arg-type]
            assert answer.status_code == 413
        except httpx.TransportError:  # the gate hung up while we still sent
            pass
    assert sent < 10 * MIN_BODY
    assert all(length <= MIN_BODY for _, length, _ in site.behind.seen)


def test_refusals_cost_no_memory_and_one_line(site: Site, device: Issued, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fedpress")
    stranger = ec.generate_private_key(ec.SECP384R1())
    admission = Admission(site.devices)
    stale = device.sign(datetime.now(UTC) - DAY)
    once = device.sign()
    admission.admit(once)
    cases = [(sign(stranger), "unknown"), (stale, "stale"), (once, "replay"), ({**once, SIGNATURE: "AA"}, "signature")]

    def all_refused(times: int) -> None:
        for headers, cause in cases * times:
            with pytest.raises(Refused) as raised:
                admission.admit(headers)
            assert raised.value.cause == cause
            site.gate.refusals.note(raised.value, "127.0.0.1")

    all_refused(100)
    gc.collect()
    tracemalloc.start()
    all_refused(400)
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert grown < 1 << 15
    assert site.gate.refusals.causes == dict.fromkeys(("unknown", "stale", "replay", "signature"), 500)
    lines = [record.getMessage() for record in caplog.records if "refused" in record.getMessage()]
    assert len(lines) == len(cases)
    for headers in (stale, once):
        assert not any(headers[SIGNATURE] in line for line in lines)


def test_strangers_without_end_are_told_apart_up_to_a_bound(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(3000):
        site.gate.refusals.note(Refused(401, "unknown", "no", f"key {number}"), "127.0.0.1")
    assert len(site.gate.refusals._told) <= 1001
    assert len(caplog.records) <= 1001


def test_plain_http_and_a_wrong_authority_get_no_answer(site: Site, tmp_path: Path) -> None:
    with httpx.Client(trust_env=False) as client, pytest.raises(httpx.TransportError):
        client.post(site.url.replace("https", "http") + PULL)
    init(tmp_path / "other", ["127.0.0.1"])
    wrong = ssl.create_default_context(cafile=str(tmp_path / "other" / "ca.pem"))
    with httpx.Client(verify=wrong, trust_env=False) as client, pytest.raises(httpx.ConnectError, match="CERTIFICATE"):
        client.post(site.url + PULL)
    assert not site.behind.seen


def test_headers_without_end_are_cut(site: Site) -> None:
    with httpx.Client(verify=site.context, trust_env=False) as client:
        for size in (20_000, 100_000, 1_000_000):
            with contextlib.suppress(httpx.TransportError):
                assert client.post(site.url + PULL, headers={"x": "y" * size}).status_code in (400, 431)
    assert not site.behind.seen


def test_where_superlink_is_away_nodes_are_told_to_ask_again(site: Site, device: Issued) -> None:
    site.gate.target = "https://127.0.0.1:1"
    answer = site.post(PULL, device.sign())
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")  # flwr's nodes ask again at 503


def test_without_keys_nodes_register_themselves_and_that_is_all(site: Site) -> None:
    gate = Gate(site.gate.target, site.gate.context, None)
    listener = Listener(gate, "127.0.0.1", 0)
    listener.start()
    try:
        with httpx.Client(trust_env=False) as client:
            url = f"http://127.0.0.1:{listener.port}"
            assert client.post(url + PATH + "register-node").status_code == 200
            assert client.post(url + PULL, content=b"a message").content == b"a message"
            assert client.post(url + PULL).content == b"", "who asks is not known: nothing is handed out again"
            assert client.post(url + "/v1/control/start-run").status_code == 404
    finally:
        listener.stop()


def test_forty_clients_at_once(site: Site, enrol: Callable[..., Issued]) -> None:
    devices = [enrol(f"d{number}") for number in range(40)]
    site.devices.refresh()

    async def one(device: Issued) -> None:
        async with httpx.AsyncClient(verify=site.context, trust_env=False, timeout=60) as client:
            for size in (10, 100_000, 10):
                answer = await client.post(site.url + PUSH, content=bytes(size), headers=device.sign())
                assert (answer.status_code, len(answer.content)) == (200, size)

    async def every() -> None:
        await asyncio.gather(*map(one, devices))

    asyncio.run(every())
    assert len(site.behind.seen) == 120
    assert {name: traffic.requests for name, traffic in site.gate.traffic.items()} == {f"d{n}": 3 for n in range(40)}
