"""Checks of a server, each with its finding and a remedy: `fedpress doctor --keys DIR`."""

import errno
import socket
import ssl
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization

from fedpress.common.address import is_loopback, join_address
from fedpress.common.diagnostics import FAILURE, OK, SOON, WARNING, Finding, date, disk, memory, software
from fedpress.common.errors import DataError
from fedpress.server.keys import authority
from fedpress.server.keys.devices import Device, read_device

_DISK = (500e6, 5e9)  # bytes: checkpoints and SuperLink's database
_MEMORY = (750e6, 2e9)
_WAIT = 5.0  # seconds
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  where to reach what listens on every address
_REVOKE = "`fedpress keys revoke NAME` and `fedpress keys issue NAME`, then bring the file to the device"


def inspect_server(keys: Path, *, host: str, port: int, out: Path) -> Iterator[Finding]:
    """Yield what is found at the server, one check after another; what cannot be checked is left out.

    Parameters
    ----------
    keys : Path
        The folder of keys.
    host, port
        Where the server listens, or would.
    out : Path
        The run's folder.
    """
    yield from software("flwr", "torch")
    yield disk(out, *_DISK)
    yield memory(*_MEMORY)
    whole = True
    for finding in _files(keys):
        whole = whole and finding.status == OK
        yield finding
    if whole:
        yield Finding("keys", OK, f"{keys} is complete, and closed to others")
    try:
        yield from _certificates(keys, host)
    except DataError as error:
        yield Finding("certificate", FAILURE, str(error), "a server does not start without it")
    yield _port(keys, host, port)
    yield from _devices(keys)


def _files(keys: Path) -> Iterator[Finding]:
    """Yield what is missing in the folder of keys, or open to others."""
    for name, mode in authority.MODES.items():
        path = keys / name
        if not path.exists():
            yield Finding("keys", FAILURE, f"{path} is not there", "`fedpress keys init` makes it, or restore a backup")
            if name == ".":
                return
            continue
        has = stat.S_IMODE(path.stat().st_mode)
        if has & 0o077 & ~mode:
            seen = f"{path} is open to others (mode {has:04o})"
            yield Finding("keys", FAILURE, seen, f"chmod {mode:o} {path}; if others were there, make keys anew")


def _certificates(keys: Path, host: str) -> Iterator[Finding]:
    ca, server = (authority.load_certificate(keys / name) for name in (authority.CA_CERTIFICATE, authority.CERTIFICATE))
    key = authority.load_key(keys / authority.KEY)
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    renew = "`fedpress keys init --renew`, and start the server again"
    try:
        server.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature):
        yield Finding("certificate", FAILURE, "the server's is not signed by the authority in ca.pem", renew)
        return
    if key.public_key().public_bytes(*form) != server.public_key().public_bytes(*form):
        yield Finding("certificate", FAILURE, "the server's is not for the key in server.key", renew)
        return
    yield Finding("certificate", OK, "the server's is signed by the authority, and for its key")
    yield date("certificate's date", server.not_valid_after_utc, renew)
    again = "make keys anew in another folder, and issue every device anew: no certificate outlives its authority"
    yield date("authority's date", ca.not_valid_after_utc, again)
    yield _hosts(authority.hosts_of(server), host)


def _hosts(hosts: list[str], listens: str) -> Finding:
    seen = f"the certificate is for {', '.join(hosts)}"
    renew = "`fedpress keys init --renew --host NAME --host ...`, with all names and addresses that devices use"
    if all(is_loopback(name) for name in hosts):
        return Finding("hosts", WARNING, f"{seen}: no other machine can use it", renew)
    if listens not in hosts and listens not in _ANY and not is_loopback(listens):
        return Finding("hosts", WARNING, f"{seen}, and not for {listens}, where the server listens", renew)
    return Finding("hosts", OK, seen)


def _port(keys: Path, host: str, port: int) -> Finding:
    """Say whether the port is free, or a server of ours has it."""
    where = join_address(host, port)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as a server does
            probe.bind((host, port))
        return Finding("port", OK, f"{where} is free")
    except socket.gaierror as error:
        return Finding(
            "port", FAILURE, f"{host} is not resolved: {error.strerror}", "--listen takes an address of this machine"
        )
    except OSError as error:
        if error.errno == errno.EACCES:
            advice = "take a port of 1024 or more, or allow it: AmbientCapabilities=CAP_NET_BIND_SERVICE in the unit"
            return Finding("port", FAILURE, f"{where} is not for this user", advice)
        if error.errno != errno.EADDRINUSE:
            advice = "--listen takes an address of this machine, or 0.0.0.0 for all of them"
            return Finding("port", FAILURE, f"{where}: {error.strerror}", advice)
    version = _greeting(keys, _ANY.get(host, host), port)
    if version:
        return Finding("port", OK, f"fedpress {version} serves at {where}, with these keys")
    advice = f"`ss -ltnp 'sport = :{port}'` shows who; end it, or take another port with --listen"
    return Finding("port", FAILURE, f"{where} is in use, and not by a fedpress server with these keys", advice)


def _greeting(keys: Path, host: str, port: int) -> str:
    """Return the version of the fedpress server that answers with these keys; empty if none does."""
    try:
        name = authority.hosts_of(authority.load_certificate(keys / authority.CERTIFICATE))[0]
        context = ssl.create_default_context(cafile=keys / authority.CA_CERTIFICATE)
        with httpx.Client(verify=context, timeout=_WAIT, trust_env=False) as client:
            url = f"https://{join_address(host, port)}/v1/fedpress"
            return str(client.get(url, extensions={"sni_hostname": name}).raise_for_status().json()["fedpress"])
    except (httpx.HTTPError, OSError, DataError, ValueError, KeyError, TypeError, IndexError):
        return ""


def _devices(keys: Path) -> Iterator[Finding]:
    found: list[Device] = []
    for path in sorted((keys / authority.DEVICES).glob("*.json")):
        try:
            found.append(read_device(path))
        except DataError as error:
            yield Finding("devices", FAILURE, str(error), "until then this device is not let in")
    now = datetime.now(UTC)
    states = [device.state(now) for device in found]
    count = f"{states.count('valid')} let in, {states.count('revoked')} revoked, {states.count('expired')} expired"
    soon = [device.name for device in found if device.revoked is None and device.expires - now < timedelta(days=SOON)]
    if soon:
        seen = f"{count}; expired or within {SOON} days: {', '.join(soon)}"
        yield Finding("devices", WARNING, seen, f"{_REVOKE}; `fedpress keys list` shows all")
    elif "valid" not in states:
        yield Finding("devices", WARNING, count, "`fedpress keys issue NAME` makes one")
    else:
        yield Finding("devices", OK, count)
