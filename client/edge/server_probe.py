"""Questions to a server that change nothing there: does it listen, who does it say it is, does it take this key."""

import socket
import ssl
import time
from base64 import b64encode
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import unquote, urlsplit

import httpx

from fedpress.client.edge.enrolment import Enrolment
from fedpress.common.address import join_address
from fedpress.common.errors import RefusedError, ServerError, ServerUnavailableError, VersionError
from fedpress.common.proxy import Proxy
from fedpress.flower.fleet_api import FleetApi

PATH = "/v1/fedpress"  # the gate answers this with its versions and the time, whoever asks
OF_DATES = ("early", "expired")
_WAIT = 10.0  # seconds
_LONGEST = 16 << 10  # bytes of a proxy's answer
_KNOWN, _UNREGISTERED = 2003, 2004  # flwr's codes: an interval that cannot be, a key that SuperLink does not have

# OpenSSL's reasons to refuse a certificate (X509_V_ERR_*).
_EARLY, _EXPIRED = 9, 10
_NAMES = (62, 64)
_NOT_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST")


@dataclass(frozen=True)
class Handshake:
    """How a TLS handshake ended."""

    fault: str = ""  # authority, name, early, expired, plain or other; empty without a fault
    said: str = ""
    protocol: str = ""
    until: datetime | None = None  # when the certificate ends


@dataclass(frozen=True)
class ServerInfo:
    """A server's description of itself, as far as it gives one."""

    status: int = 0  # HTTP's; 0 if there was no answer
    fedpress: str = ""
    flwr: str = ""
    ahead: float | None = None  # seconds that this device's clock is ahead of the server's


@dataclass(frozen=True)
class SignedResponse:
    """A server's answer to a request that is signed with this device's key."""

    cause: str
    said: str


def connect(host: str, port: int, proxy: Proxy | None = None) -> socket.socket:
    """Return a connection, or raise OSError."""
    if proxy is None:
        return socket.create_connection((host, port), _WAIT)
    return _tunnel(proxy, join_address(host, port))


def _tunnel(proxy: Proxy, server: str) -> socket.socket:
    """Return a connection to `server` through a proxy, or raise OSError."""
    parts = urlsplit(proxy.url)
    lines = [f"CONNECT {server} HTTP/1.1", f"Host: {server}"]
    if parts.username:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        lines.append(f"Proxy-Authorization: Basic {b64encode(login.encode()).decode()}")
    connection = socket.create_connection((str(parts.hostname), parts.port or 80), _WAIT)
    try:
        connection.sendall("".join(f"{line}\r\n" for line in [*lines, ""]).encode())
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):  # byte by byte: what follows belongs to TLS
            byte = connection.recv(1)
            if not byte or len(answer) > _LONGEST:
                raise OSError("the proxy's answer to CONNECT is not HTTP")
            answer += byte
        status = answer.partition(b"\r\n")[0].decode(errors="replace").split(" ", 1)[-1]
        if not status.startswith("200"):
            raise OSError(f"the proxy answers {status}")
    except BaseException:
        connection.close()
        raise
    return connection


def handshake(connection: socket.socket, host: str, ca: bytes) -> Handshake:
    """Shake hands over `connection`, and close it."""
    try:
        with connection, _context(ca).wrap_socket(connection, server_hostname=host) as secure:
            certificate = secure.getpeercert() or {}
            until = datetime.fromtimestamp(ssl.cert_time_to_seconds(str(certificate["notAfter"])), UTC)
            return Handshake(protocol=secure.version() or "", until=until)
    except ssl.SSLCertVerificationError as error:
        faults = {_EARLY: "early", _EXPIRED: "expired", **dict.fromkeys(_NAMES, "name")}
        return Handshake(faults.get(error.verify_code, "authority"), error.verify_message)
    except ssl.SSLError as error:
        return Handshake("plain" if error.reason in _NOT_TLS else "other", error.reason or str(error))
    except OSError as error:
        return Handshake("other", str(error.strerror or error or type(error).__name__))


def hello(server: str, ca: bytes, *, trusted: bool, proxy: Proxy | None = None) -> ServerInfo:
    """Ask a server for its versions and time; no key is shown, so its dates need not be `trusted`."""
    context = _context(ca)
    if not trusted:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    asked = time.time()
    try:
        address = proxy.url if proxy else None
        with httpx.Client(verify=context, timeout=_WAIT, proxy=address, trust_env=False) as client:
            response = client.get(f"https://{server}{PATH}")
    except httpx.HTTPError:
        return ServerInfo()
    answered = time.time()
    told: dict[str, object] = {}
    try:
        body = response.json() if response.is_success else None
        told = body if isinstance(body, dict) else {}
    except ValueError:
        pass
    moments = _moments(str(told.get("time", "")), response.headers.get("date", ""))
    return ServerInfo(
        response.status_code,
        str(told.get("fedpress", "")),
        str(told.get("flwr", "")),
        moments and _ahead(asked, answered, *moments),
    )


def ask(enrolment: Enrolment) -> SignedResponse:
    """Return what the server says to this device's key.

    The request asks to be activated with a heartbeat that cannot be: a server that takes the key says that, and the
    device, which may be running, is neither activated nor deactivated.
    """
    fleet = FleetApi(enrolment.server, enrolment.key, enrolment.ca, heartbeat=0.0)
    try:
        fleet.connect()
    except ServerError as error:
        return _meaning(error)
    finally:
        fleet.close()
    return SignedResponse("accepted", "")


def _meaning(error: ServerError) -> SignedResponse:
    cause = error.__cause__
    code, refused = None, ""
    if isinstance(cause, httpx.HTTPStatusError):
        refused = cause.response.headers.get("fedpress-refused", "")  # the gate's word for why
        try:
            code = cause.response.json().get("code")
        except (ValueError, AttributeError):
            code = None
    if code == _KNOWN:
        return SignedResponse("accepted", "")
    if code == _UNREGISTERED:
        return SignedResponse("early", "the gate knows the key, SuperLink does not yet")
    kinds = ((VersionError, "version"), (RefusedError, "refused"), (ServerUnavailableError, "away"))
    return SignedResponse(
        refused or next((name for kind, name in kinds if isinstance(error, kind)), "other"), str(error)
    )


def _context(ca: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags |= ssl.VERIFY_X509_STRICT  # as Python 3.13 is by itself
    context.load_verify_locations(cadata=ca.decode("ascii"))
    return context


def _ahead(asked: float, answered: float, earliest: float, latest: float) -> float:
    """Return by how much a clock is ahead at least that asked and got an answer when another showed these moments."""
    return asked - latest if asked > latest else min(0.0, answered - earliest)


def _moments(iso: str, date: str) -> tuple[float, float] | None:
    """Return the seconds since 1970 between which the server answered: the gate says it, else HTTP, to the second."""
    try:
        moment = datetime.fromisoformat(iso).timestamp()
    except ValueError:
        pass
    else:
        return moment, moment
    try:
        moment = parsedate_to_datetime(date).timestamp()
    except ValueError:
        return None
    return moment, moment + 1
