"""Unknown and hostile clients are refused, logged once, at hardly any cost, while a run continues."""

import base64
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedpress.client.edge.enrolment import read_enrolment
from fedpress.common.errors import RefusedError
from fedpress.flower.fleet_api import FleetApi
from fedpress.server import keys
from fedpress.server.keys.authority import load_certificate, load_key
from fedpress.simulations.bench.memory import peak

from .federation import Federation, wait_for
from .tcp_proxy import HOST

pytestmark = pytest.mark.slow
Make = Callable[..., Federation]
TIMES = 100  # how often each attack is made


@dataclass
class Attack:
    """Something that must not get through, to be made again and again."""

    make: Callable[[], int]  # returns the HTTP status, 0 for no answer at all
    status: int
    logged: str = ""  # a line with all of these words is in the log once, by their blanks apart; empty for none


class Kept(Exception):
    """Raised where a request would go out."""


def captured(fleet: FleetApi, call: Callable[[], object], *, sent: bool = False) -> httpx.Request:
    """Return the request that `call` makes, whether or not it is sent."""
    seen: list[httpx.Request] = []

    def keep(request: httpx.Request) -> None:
        seen.append(request)
        if not sent:
            raise Kept

    fleet._client._client.event_hooks["request"] = [keep]
    with suppress(RefusedError, Kept):
        call()
    fleet._client._client.event_hooks["request"] = []
    return seen[-1]


def server_side(federation: Federation) -> list[psutil.Process]:
    clients = {running.process.pid for running in federation.clients.values()}
    return [process for process in federation.processes() if process.pid not in clients]


def spent(processes: list[psutil.Process]) -> tuple[float, int]:
    """Return their seconds of the processor, and bytes of memory that are theirs alone."""
    seconds = nbytes = 0.0
    for process in processes:
        times, memory = process.cpu_times(), process.memory_full_info()
        seconds, nbytes = seconds + times.user + times.system, nbytes + memory.uss
    return seconds, int(nbytes)


def make_attacks(federation: Federation, stack: ExitStack) -> dict[str, Attack]:
    """Everything there is to try; needs a server that runs, with nodes 0 and 1 at work and 2 to 4 not started."""
    ca = (federation.keys / "ca.pem").read_bytes()
    address = f"{HOST}:{federation.port}"
    context = ssl.create_default_context(cadata=ca.decode())
    client = stack.enter_context(httpx.Client(verify=context, base_url=f"https://{address}", timeout=60))

    def fleet(name: str | None) -> FleetApi:
        key = read_enrolment(federation.enrolment(name)).key if name else ec.generate_private_key(ec.SECP384R1())
        made = FleetApi(address, key, ca, heartbeat=30)
        stack.callback(made.close)
        return made

    def again(who: FleetApi, call: Callable[[], object]) -> Callable[[], int]:
        """A request that is signed anew each time."""

        def make() -> int:
            return send(captured(who, call))

        return make

    def send(request: httpx.Request) -> int:
        content = request.content
        return client.post(request.url.path, content=content, headers=dict(request.headers)).status_code

    stranger = fleet(None)
    revoked, expired, third = fleet("node-2"), fleet("node-3"), fleet("node-4")
    third.connect()
    keys.revoke(federation.keys, "node-2")
    record = federation.keys / "devices" / "node-3.json"
    facts = json.loads(record.read_text())
    facts.pop("checksum")
    facts["expires"] = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    part = record.with_suffix(".part")
    part.write_text(json.dumps(facts))
    part.replace(record)
    wait_for(lambda: status_of(revoked) == 401 and status_of(expired) == 401, "the server to take note")
    ids = json.loads((federation.out / "nodes.json").read_text())

    def claims() -> int:
        request = captured(stranger, stranger.connect)
        for name in request.headers:
            if "public-key" in name:
                request.headers[name] = base64.b64encode(third._public).decode()
        return send(request)

    def poses() -> int:
        own, third._node.node_id = third._node.node_id, ids["node-0"]
        try:
            return status_of(third, third.pull)
        finally:
            third._node.node_id = own

    old = captured(third, third.heartbeat, sent=True)

    def large() -> int:
        big = captured(third, third.heartbeat)
        headers = {**big.headers, "content-length": str(1 << 40)}
        with (
            socket.create_connection((HOST, federation.port), 60) as plain,
            context.wrap_socket(plain, server_hostname=HOST) as line,
        ):
            head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            line.sendall(f"POST {big.url.path} HTTP/1.1\r\n{head}\r\n".encode())
            return int(line.recv(100).split()[1])

    def plain() -> int:
        with socket.create_connection((HOST, federation.port), 60) as line:
            line.sendall(b"POST /v1/fleet/pull-messages HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
            with suppress(ConnectionError):
                return 200 if line.recv(100).startswith(b"HTTP") else 0
            return 0

    return {
        "an unknown key": Attack(again(stranger, stranger.connect), 401, "refused: unknown"),
        "a revoked key": Attack(again(revoked, revoked.connect), 401, "refused: revoked node-2"),
        "an expired key": Attack(again(expired, expired.connect), 401, "refused: expired node-3"),
        "another's key, its own signature": Attack(claims, 401, "refused: signature node-4"),
        "its own key, another's identity": Attack(poses, 401),
        "a replay": Attack(lambda: send(old), 401, "refused: replay node-4"),
        "a body that says it has a terabyte": Attack(large, 413, "refused: body"),
        "plain HTTP to the TLS port": Attack(plain, 0),
        "the control API": Attack(lambda: client.post("/v1/control/start-run").status_code, 404, "refused: path"),
    }


def status_of(fleet: FleetApi, call: Callable[[], object] | None = None) -> int:
    try:
        (call or fleet.connect)()
    except RefusedError:
        return 401
    return 200


def test_strangers_are_kept_out_while_a_run_goes_on(make_federation: Make, tell: Callable[[str], None]) -> None:
    federation = make_federation(nodes=5, rounds=3, settings={"per-round": 2, "nodes": 2})
    federation.names, others = federation.names[:2], federation.names[2:]
    federation.start_all()
    federation.wait_rounds(1)
    with ExitStack() as stack, federation.held("train-node-0") as reached:
        reached()
        attacks = make_attacks(federation, stack)
        processes = server_side(federation)
        before, began = spent(processes), time.monotonic()
        time.sleep(5)
        idle = (spent(processes)[0] - before[0]) / (time.monotonic() - began)  # what it costs to be there
        for name, attack in attacks.items():
            before, began = spent(processes), time.monotonic()
            found = {attack.make() for _ in range(TIMES)}
            assert found == {attack.status}, name
            after = spent(processes)
            seconds = after[0] - before[0] - idle * (time.monotonic() - began)
            grown = (after[1] - before[1]) / 1000
            tell(f"{name}: {1000 * seconds / TIMES:.2f} ms of processor each, {grown:+.0f} kB after {TIMES}")
    federation.finish()
    assert others
    lines = (federation.out / "server.log").read_text().splitlines()
    for name, attack in attacks.items():
        words = attack.logged.split()
        told = [line for line in lines if words and all(word in line for word in words) and "times in all" not in line]
        assert len(told) == bool(words), (name, told)


@pytest.mark.parametrize("app", ["app", "replaying", "garbage", "huge", "bomb"])
def test_replies_that_are_none_are_refused(app: str, make_federation: Make, tell: Callable[[str], None]) -> None:
    """A device with a right key and an owner who means ill; `app` is the honest one, to compare with."""
    up = "ef | topk(0.2) | zstd(3)"
    federation = make_federation(nodes=3, rounds=3, settings={"up": up, "timeout": 120.0})
    federation.start_server()
    federation.wait_listening()
    for name in federation.names[:2]:
        federation.start_client(name)
    federation.start_client("node-2", app=f"proofapps:{app}")
    federation.wait_rounds(2)
    with federation.held("aggregate") as reached:
        high = peak(psutil.Process(reached())) / 1e6
        link = peak(federation.find("flower-superlink")) / 1e6
    tell(f"node-2 runs {app}: peak memory {high:.0f} MB of the ServerApp, {link:.0f} MB of SuperLink")
    result = federation.finish()
    counted = [row["clients"] for row in result["rounds"]]
    honest = 3 if app == "app" else 2
    # The first reply of one that repeats it is a right one.
    assert counted == [3 if app == "replaying" else honest, honest, honest]
    assert app == "app" or ("node node-2" in federation.log and "refused" in federation.log)


def impostor(federation: Federation, certificate: bytes, key: bytes) -> tuple[int, list[bytes], Callable[[], None]]:
    """Listen with a certificate; return the port, what was heard, and how to end it."""
    chain, secret = federation.folder / "impostor.pem", federation.folder / "impostor.key"
    chain.write_bytes(certificate)
    secret.write_bytes(key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(chain, secret)
    listener = socket.create_server((HOST, 0))
    heard: list[bytes] = []

    def listen() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, suppress(OSError), context.wrap_socket(connection, server_side=True) as line:
                heard.append(line.recv(1 << 16))

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()

    def close() -> None:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(30)

    return listener.getsockname()[1], heard, close


def signed(folder: Path, *, days: tuple[int, int]) -> tuple[bytes, bytes]:
    """Return a certificate for loopback from the authority in `folder`, valid between these days, and its key."""
    authority = load_certificate(folder / "ca.pem")
    old, key = load_certificate(folder / "server.pem"), ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(
        issuer_name=authority.subject,
        subject_name=old.subject,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now + timedelta(days=days[0]),
        not_valid_after=now + timedelta(days=days[1]),
    )
    for extension in old.extensions:
        if extension.oid != x509.SubjectKeyIdentifier.oid:
            builder = builder.add_extension(extension.value, extension.critical)
    pem = serialization.Encoding.PEM
    certificate = builder.sign(load_key(folder / "ca.key"), hashes.SHA384()).public_bytes(pem)
    return certificate, key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


@pytest.mark.parametrize("wrong", ["authority", "date"])
def test_a_client_tells_an_impostor_nothing(wrong: str, make_federation: Make) -> None:
    federation = make_federation(nodes=1)
    if wrong == "authority":
        other = federation.folder / "other-keys"
        keys.init(other, [HOST])
        made = signed(other, days=(-1, 1))
    else:
        made = signed(federation.keys, days=(-3, -1))
    port, heard, close = impostor(federation, *made)
    try:
        address = ["--server", f"{HOST}:{port}", "--state", federation.state("node-0"), "--app", "proofapps:app"]
        client = federation.start("node-0", "client", federation.enrolment("node-0"), *address)
        wait_for(lambda: "certificate" in client.log.read_text(), "the client to say what is wrong")
        assert client.alive
        assert client.stop() == 0
        told = [line for line in client.log.read_text().splitlines() if "certificate" in line]
        assert len(told) == 1
        assert not any(heard)
    finally:
        close()


def test_a_server_with_an_expired_certificate_does_not_start(make_federation: Make) -> None:
    federation = make_federation(nodes=1)
    certificate, key = signed(federation.keys, days=(-3, -1))
    (federation.keys / "server.pem").write_bytes(certificate)
    (federation.keys / "server.key").write_bytes(key)
    server = federation.start_server()
    assert server.process.wait(300) == 1
    assert "has expired" in server.log.read_text()
