"""Keys, a gate on loopback with a stand-in for SuperLink behind it, and requests as flwr signs them."""

import base64
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from fedpress.flower.control_api import PUBLIC_KEY, SIGNATURE, TIMESTAMP
from fedpress.server.deploy.authentication import Admission
from fedpress.server.deploy.device_registry import Devices
from fedpress.server.deploy.fleet_proxy import Gate
from fedpress.server.deploy.listener import Listener
from fedpress.server.keys import init, issue
from fedpress.server.keys.devices import Device


@dataclass
class Behind:
    """What stands in for SuperLink: notes what reaches it."""

    seen: list[tuple[str, int, dict[str, str]]] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        request = Request(scope, receive)
        body = await request.body()
        self.seen.append((request.url.path, len(body), dict(request.headers)))
        await Response(body, media_type="application/protobuf")(scope, receive, send)


@dataclass(frozen=True)
class Issued:
    """A device with its private key."""

    device: Device
    key: ec.EllipticCurvePrivateKey

    def sign(self, moment: datetime | None = None) -> dict[str, str]:
        """Return the headers that flwr's nodes sign their requests with."""
        return sign(self.key, moment)


def sign(key: ec.EllipticCurvePrivateKey, moment: datetime | None = None) -> dict[str, str]:
    text = (moment or datetime.now(UTC)).isoformat()
    pem = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    signature = key.sign(text.encode(), ec.ECDSA(hashes.SHA256()))
    return {
        PUBLIC_KEY: base64.b64encode(pem).decode(),
        TIMESTAMP: text,
        SIGNATURE: base64.b64encode(signature).decode(),
    }


@pytest.fixture(scope="session")
def loopback(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys of what stands behind the gate."""
    folder = tmp_path_factory.mktemp("loopback") / "keys"
    init(folder, ["127.0.0.1"])
    return folder


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A server's folder of keys."""
    folder = tmp_path / "keys"
    init(folder, ["127.0.0.1"])
    return folder


@pytest.fixture
def enrol(keys: Path, tmp_path: Path) -> Callable[..., Issued]:
    """Issue a device."""

    def make(name: str, days: int = 365, **node: str | int) -> Issued:
        import json

        device = issue(keys, name, tmp_path / f"{name}.enrol", node=node, days=days)
        key = serialization.load_pem_private_key(
            json.loads((tmp_path / f"{name}.enrol").read_text())["key"].encode(), None
        )
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return Issued(device, key)

    return make


@dataclass
class Site:
    """A gate and what is around it."""

    gate: Gate
    behind: Behind
    devices: Devices
    url: str
    port: int
    context: ssl.SSLContext

    def post(self, path: str, headers: dict[str, str] | None = None, content: bytes = b"") -> httpx.Response:
        with httpx.Client(verify=self.context, trust_env=False) as client:
            return client.post(self.url + path, content=content, headers=headers)


@pytest.fixture
def site(keys: Path, loopback: Path) -> Iterator[Site]:
    """A gate on loopback, with TLS, over a stand-in with TLS."""
    behind = Behind()
    inner = Listener(behind, "127.0.0.1", 0, (loopback / "server.pem", loopback / "server.key"))
    inner.start()
    devices = Devices(keys)
    context = ssl.create_default_context(cafile=str(loopback / "ca.pem"))
    gate = Gate(f"https://127.0.0.1:{inner.port}", context, Admission(devices))
    outer = Listener(gate, "127.0.0.1", 0, (keys / "server.pem", keys / "server.key"))
    outer.start()
    trust = ssl.create_default_context(cafile=str(keys / "ca.pem"))
    yield Site(gate, behind, devices, f"https://127.0.0.1:{outer.port}", outer.port, trust)
    outer.stop()
    inner.stop()


DAY = timedelta(days=1)
