"""Checks of a device, each with its finding and a remedy: `fedpress doctor ENROLMENT`."""

import socket
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from fedpress.client.edge import server_probe
from fedpress.client.edge.enrolment import Enrolment, load, parse_enrolment
from fedpress.client.edge.service import state_folder
from fedpress.common.diagnostics import FAILURE, OK, WARNING, Finding, date, disk, memory, software
from fedpress.common.errors import EnrolmentError, SettingError
from fedpress.common.proxy import Proxy, find_proxy, named_proxy
from fedpress.common.version import VERSION

ISSUE = "at the server: `fedpress keys revoke {name}`, `fedpress keys issue {name}`, and bring the new file here"
CLOCK = "set the clock: `timedatectl set-ntp true`; a board without a battery has the wrong time after each start"
# What flwr's node authentication lets in: signatures up to so many seconds from the future, and from the past.
AHEAD, BEHIND = 5, 300
_DIRECT = "have the proxy let it through, or set no_proxy={host} for the client, so that it connects directly"
_DISK = (100e6, 1e9)  # bytes: a few copies of the model
_MEMORY = (250e6, 500e6)  # bytes: torch takes 200 MB before it trains anything


def inspect_device(
    path: Path, *, state: Path | None = None, passphrase: str | None = None, server: str = ""
) -> Iterator[Finding]:
    """Yield what is found on this device, one check after another; what cannot be checked is left out.

    Parameters
    ----------
    path : Path
        The enrolment file.
    state : Path | None
        The folder in which the device would keep its state, if not the usual one.
    server : str
        HOST:PORT in place of the enrolment's.
    """
    yield from software("flwr", "torch")
    yield disk(state or state_folder(path.stem), *_DISK)
    yield memory(*_MEMORY)
    try:
        enrolment = parse_enrolment(load(path), passphrase, str(path))
    except EnrolmentError as error:
        yield Finding("enrolment", FAILURE, str(error), "mend that first: the rest is checked with what the file says")
        return
    enrolment = replace(enrolment, server=server or enrolment.server)
    yield Finding("enrolment", OK, f"{enrolment.name}, for {enrolment.server}")
    yield date("enrolment's date", enrolment.expires, ISSUE.format(name=enrolment.name))
    yield from _way(enrolment)


def _way(enrolment: Enrolment) -> Iterator[Finding]:
    """Yield what is found on the way to the server, as far as it can be gone."""
    host, port = enrolment.address
    try:
        proxy = find_proxy(host, port, tls=True)
    except SettingError as error:
        yield Finding("proxy", FAILURE, str(error), _DIRECT.format(host=host))
        return
    if proxy:
        yield Finding("proxy", OK, f"{proxy} is used")
    else:
        if named := named_proxy(tls=True):
            yield Finding("proxy", OK, f"{named} is not used for {host}")
        try:
            addresses = sorted({str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)})
        except OSError as error:
            advice = "check the name's spelling, and this device's network and DNS: `getent hosts " + host + "`"
            yield Finding("address", FAILURE, f"{host} is not resolved: {error.strerror}", advice)
            return
        yield Finding("address", OK, f"{host} is {', '.join(addresses)}")
    try:
        connection = server_probe.connect(host, port, proxy)
    except OSError as error:
        yield _blocked(error, enrolment, proxy) if proxy else _unreachable(error, enrolment.server)
        return
    through = f" through {proxy}" if proxy else ""
    yield Finding("reachable", OK, f"{enrolment.server} takes connections{through}")
    shake = server_probe.handshake(connection, host, enrolment.ca)
    yield _trusted(shake, host)
    if shake.until is not None:
        yield date("certificate's date", shake.until, "at the server: `fedpress keys init --renew`, and start it again")
    if shake.fault in {"", *server_probe.OF_DATES}:
        hello = server_probe.hello(enrolment.server, enrolment.ca, trusted=not shake.fault, proxy=proxy)
        yield from _greeting(hello)
    if not shake.fault:
        yield _accepted(server_probe.ask(enrolment), enrolment.name)


def _blocked(error: OSError, enrolment: Enrolment, proxy: Proxy) -> Finding:
    seen = f"{enrolment.server} is not reached through the proxy {proxy}: {error.strerror or error}"
    return Finding("reachable", FAILURE, seen, _DIRECT.format(host=enrolment.address[0]))


def _unreachable(error: OSError, server: str) -> Finding:
    if isinstance(error, TimeoutError):
        advice = "a firewall or router drops it: the port must be open at the server, and forwarded to it"
        return Finding("reachable", FAILURE, f"{server} does not answer", advice)
    if isinstance(error, ConnectionRefusedError):
        advice = "start `fedpress server` there, or check the port"
        return Finding("reachable", FAILURE, f"nothing listens at {server}", advice)
    return Finding("reachable", FAILURE, f"{server}: {error.strerror or error}", "check this device's network")


def _trusted(shake: server_probe.Handshake, host: str) -> Finding:
    said = f" ({shake.said})" if shake.said else ""
    faults = {
        "": (OK, f"{shake.protocol}, the certificate is from the enrolment's authority and for {host}", ""),
        "authority": (
            FAILURE,
            f"the certificate is not from the enrolment's authority{said}",
            "this is another server, or its keys were made anew: check the address, or have the device issued anew",
        ),
        "name": (
            FAILURE,
            f"the certificate is not for {host}{said}",
            f"at the server: `fedpress keys init --renew --host {host}`, with its other hosts, and start it again",
        ),
        "early": (FAILURE, f"the certificate does not hold yet{said}", CLOCK),
        "expired": (
            FAILURE,
            f"the certificate has expired{said}",
            "if the clock here is right (see below), at the server: `fedpress keys init --renew`, and start it again",
        ),
        "plain": (
            FAILURE,
            f"what answers does not speak TLS{said}",
            "check the port; a server that was started with --insecure takes no enrolments",
        ),
        "other": (FAILURE, f"no TLS connection{said}", "something on the way may change it: a proxy, a portal"),
    }
    return Finding("TLS", *faults[shake.fault])


def _greeting(hello: server_probe.ServerInfo) -> Iterator[Finding]:
    """Yield clock and versions, as the server's answer to a question without a key has them."""
    if hello.ahead is None:
        yield Finding(
            "clock", WARNING, f"the server does not tell the time; it is {_now()} here", "see that it is right"
        )
    else:
        yield _clock(hello.ahead)
    if not hello.fedpress or not hello.flwr:
        seen = f"the server does not tell its versions (it answers {hello.status or 'nothing'})"
        yield Finding("versions", WARNING, seen, "is it `fedpress server` that listens there, and is it a recent one?")
        return
    ours, theirs = (VERSION, version("flwr")), (hello.fedpress, hello.flwr)
    seen = f"fedpress {theirs[0]} and flwr {theirs[1]} at the server, {ours[0]} and {ours[1]} here"
    if _minor(ours[1]) != _minor(theirs[1]):
        yield Finding("versions", FAILURE, seen, f"install the server's here: pip install 'flwr=={theirs[1]}'")
    elif ours[0] != theirs[0]:
        yield Finding("versions", WARNING, seen, f"install the server's here: pip install 'fedpress=={theirs[0]}'")
    else:
        yield Finding("versions", OK, seen)


def _clock(ahead: float) -> Finding:
    """Judge a clock that is so many seconds ahead of the server's."""
    off = f"{abs(ahead):,.0f} s {'ahead of' if ahead > 0 else 'behind'}" if abs(ahead) >= 1 else "the same as"
    seen = f"{off} the server's: it is {_now()} here"
    limit = f"flwr lets a device in from {AHEAD} s ahead to {BEHIND // 60} minutes behind"
    if not -BEHIND < ahead < AHEAD:
        return Finding("clock", FAILURE, seen, f"{limit}; {CLOCK}")
    if not -BEHIND / 5 < ahead < AHEAD / 2:
        return Finding("clock", WARNING, seen, f"{limit}; {CLOCK}")
    return Finding("clock", OK, seen)


def _accepted(answer: server_probe.SignedResponse, name: str) -> Finding:
    again = ISSUE.format(name=name)
    causes = {
        "accepted": (OK, "the server takes this device's key", ""),
        "unknown": (FAILURE, answer.said, f"does the server use the folder of keys that {name} is from? Else, {again}"),
        "revoked": (FAILURE, answer.said, again),
        "expired": (FAILURE, answer.said, again),
        "stale": (FAILURE, answer.said, CLOCK),
        "early": (WARNING, answer.said, "a new key takes the server some seconds: ask again in a minute"),
        "away": (WARNING, answer.said, "the server starts, or is overloaded: ask again in a minute"),
        "version": (FAILURE, answer.said, "install the server's version of flwr here"),
    }
    status, seen, advice = causes.get(answer.cause, (FAILURE, answer.said, "look into the server's log, server.log"))
    return Finding("key", status, seen, advice)


def _minor(text: str) -> str:
    return ".".join(text.split(".")[:2])


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S %Z}"
