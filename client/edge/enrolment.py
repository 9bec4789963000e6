"""The enrolment of a device: `fedpress keys issue` writes the file, and this reads it.

The file is JSON: {"schema": 1, "name", "server": "host:port", "ca": PEM, "key": PEM of a P-384 key in PKCS8, encrypted
or not, "node": {...}, "expires": ISO, "checksum"}. It holds a private key: nobody but its owner may read it.
"""

import json
import math
import os
import stat
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedpress.common.address import parse_address
from fedpress.common.checked_files import FIELD, check
from fedpress.common.errors import DataError, EnrolmentError, PassphraseError, SettingError
from fedpress.common.settings import Value

SCHEMA = 1
_FIELDS = ("schema", "name", "server", "ca", "key", "node", "expires")
_MOST = 1 << 20  # bytes


@dataclass(frozen=True)
class Enrolment:
    """A device's name, whom it trusts, and the key that it proves itself with."""

    name: str
    server: str  # HOST:PORT
    ca: bytes = field(repr=False)  # PEM
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    node: dict[str, Value]
    expires: datetime

    @property
    def address(self) -> tuple[str, int]:
        """The server's host and port."""
        return parse_address(self.server)


def read_enrolment(path: Path, passphrase: str | None = None) -> Enrolment:
    """Return the enrolment in a file, if a device may use it now.

    Raises
    ------
    PassphraseError
        If the key is encrypted, and the passphrase is missing or wrong.
    EnrolmentError
        If the file is missing, open to others, cut short, not an enrolment, or expired.
    """
    enrolment = parse_enrolment(load(path), passphrase, str(path))
    require_current(enrolment)
    return enrolment


def load(path: Path) -> bytes:
    """Return the bytes of an enrolment file that nobody else can read."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise EnrolmentError(f"{path} is no file")
            if status.st_mode & 0o077 and not _is_credential(path):
                mode = stat.S_IMODE(status.st_mode)
                raise EnrolmentError(f"{path} is open to others (mode {mode:04o}), and holds a key: chmod 600 {path}")
            if status.st_size > _MOST:
                raise EnrolmentError(f"{path} is no enrolment: it has {status.st_size:,} bytes")
            return file.read(_MOST)
    except FileNotFoundError as error:
        raise EnrolmentError(f"{path} is not there: `fedpress keys issue` makes it, at the server") from error
    except IsADirectoryError as error:
        raise EnrolmentError(f"{path} is no file") from error
    except OSError as error:
        raise EnrolmentError(f"{path} cannot be read: {error.strerror}") from error


def parse_enrolment(data: bytes, passphrase: str | None = None, what: str = "the enrolment") -> Enrolment:
    """Return the enrolment that the bytes of a file are, whatever its date; errors call it `what`."""
    record = _record(data, what)
    if record["schema"] != SCHEMA:
        raise EnrolmentError(f"{what} has schema {record['schema']!r}, this fedpress reads {SCHEMA}: update fedpress")
    for name in ("name", "server", "ca", "key", "expires"):
        if not isinstance(record[name], str) or not record[name]:
            raise EnrolmentError(f"{what} is no enrolment: its {name} is no text")
    if Path(record["name"]).name != record["name"] or "\0" in record["name"]:  # a folder is called so
        raise EnrolmentError(f"{what} is no enrolment: {record['name']!r} is no device's name")
    try:
        parse_address(record["server"])
    except SettingError as error:
        raise EnrolmentError(f"{what} names no server: {error}") from error
    return Enrolment(
        record["name"],
        record["server"],
        _ca(record["ca"], what),
        _key(record["key"], passphrase, what),
        _node(record["node"], what),
        _date(record["expires"], what),
    )


def require_current(enrolment: Enrolment, now: datetime | None = None) -> None:
    """Raise EnrolmentError if the enrolment has expired."""
    now = now or datetime.now(UTC)
    if now >= enrolment.expires:
        raise EnrolmentError(
            f"the enrolment of {enrolment.name} expired at {enrolment.expires:%Y-%m-%d %H:%M %Z}, and it is "
            f"{now:%Y-%m-%d %H:%M %Z} by this device's clock: have it revoked and issued anew, or set the clock"
        )


def _is_credential(path: Path) -> bool:
    """Whether systemd keeps it for this service alone: its ACL shows as bits of the group."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    return bool(folder) and path.resolve().parent == Path(folder or "").resolve()


def _record(data: bytes, what: str) -> dict[str, Any]:
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n").strip()
        record = json.loads(text, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        ends_early = error.pos >= len(text) or error.msg.startswith("Unterminated") or not text.endswith("}")
        if not text or (text.startswith("{") and ends_early):
            raise EnrolmentError(f"{what} is cut short: copy it again") from error
        raise EnrolmentError(f"{what} is not JSON: {error}") from error
    except (ValueError, RecursionError) as error:
        raise EnrolmentError(f"{what} is not JSON") from error
    if not isinstance(record, dict):
        raise EnrolmentError(f"{what} is no enrolment: it is JSON, but no object")
    if missing := [name for name in _FIELDS if name not in record]:
        raise EnrolmentError(f"{what} is no enrolment: it has no {missing[0]}")
    if strange := sorted(record.keys() - {*_FIELDS, *FIELD}):
        raise EnrolmentError(f"{what} has a field that this fedpress does not know: {strange[0]!r}")
    try:
        check(text.encode(), what)
    except DataError as error:
        raise EnrolmentError(f"{error}: copy it again") from error
    return record


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _ca(text: str, what: str) -> bytes:
    try:
        for certificate in x509.load_pem_x509_certificates(text.encode()):
            if certificate.issuer == certificate.subject:
                certificate.verify_directly_issued_by(certificate)  # as good as a checksum
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
        raise EnrolmentError(f"{what} holds no certificate of the server's authority: have it issued anew") from error
    return text.encode()


def _key(text: str, passphrase: str | None, what: str) -> ec.EllipticCurvePrivateKey:
    encrypted = "BEGIN ENCRYPTED PRIVATE KEY" in text
    if encrypted and not passphrase:
        raise PassphraseError(f"{what} needs a passphrase: --passphrase asks for it, FEDPRESS_PASSPHRASE may hold it")
    secret = passphrase.encode() if encrypted and passphrase else None
    try:
        key = serialization.load_pem_private_key(text.encode(), secret)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        # Neither text nor passphrase are named, and the cause is left out: a log must hold nothing of them.
        if encrypted and "password" in str(error).lower():
            raise PassphraseError(f"the passphrase of {what} is wrong") from None
        raise EnrolmentError(f"{what} holds no private key: copy it again, or have it issued anew") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        kind = key.curve.name if isinstance(key, ec.EllipticCurvePrivateKey) else type(key).__name__
        raise EnrolmentError(f"{what} holds a key on the wrong curve: secp384r1 is right, got {kind}")
    return key


def _node(node: object, what: str) -> dict[str, Value]:
    if not isinstance(node, dict) or not all(isinstance(value, Value) for value in node.values()):
        raise EnrolmentError(f"{what} is no enrolment: its node is not an object of strings, numbers and booleans")
    if not all(math.isfinite(value) for value in node.values() if isinstance(value, float)):
        raise EnrolmentError(f"{what} is no enrolment: its node holds a number that is not finite")
    return node


def _date(text: str, what: str) -> datetime:
    try:
        date = datetime.fromisoformat(text)
    except ValueError as error:
        raise EnrolmentError(f"{what} is no enrolment: expires is no date, got {text!r}") from error
    if date.tzinfo is None:
        raise EnrolmentError(f"{what} is no enrolment: expires has no time zone, got {text!r}")
    return date
