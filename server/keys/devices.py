"""Devices by name: each has one valid key, which can be revoked. One file each, `devices/NAME.json`."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedpress.common import files
from fedpress.common.address import join_address, parse_address
from fedpress.common.checked_files import FIELD, read_json, stamped_json
from fedpress.common.errors import DataError, SettingError, unknown
from fedpress.common.settings import Value
from fedpress.server.keys import authority

SCHEMA = 1
DAYS = 365
MODE = 0o600
SHORTEST = 8  # characters of a passphrase
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MOST_DAYS = 36_500


@dataclass(frozen=True)
class Device:
    """The server's record of a device."""

    name: str
    public_key: str  # in OpenSSH's format, one line
    issued: datetime
    expires: datetime
    revoked: datetime | None = None

    @property
    def pem(self) -> bytes:
        """The public key as flwr sends it: PEM, SubjectPublicKeyInfo."""
        return load_public_key(self.public_key).public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def state(self, now: datetime | None = None) -> str:
        """Return "valid", "revoked" or "expired": only valid devices are admitted."""
        if self.revoked is not None:
            return "revoked"
        return "valid" if (now or datetime.now(UTC)) < self.expires else "expired"


def issue(
    folder: Path,
    name: str,
    out: Path,
    *,
    server: str = "",
    node: Mapping[str, Value] | None = None,
    passphrase: str | None = None,
    days: int = DAYS,
) -> Device:
    """Make a device's key pair, record the public key, and write the enrolment file `out` for the device.

    Parameters
    ----------
    server : str
        HOST:PORT that the device connects to; the server certificate's first host if empty.
    node : mapping of str to Value | None
        The node's configuration, which the ClientApp reads.
    passphrase : str | None
        Passphrase that encrypts the private key in the file; None to leave it unencrypted.

    Raises
    ------
    SettingError
        If the name is invalid or in use, the server's certificate is not for `server`, or `out` exists.
    """
    require_name(name)
    if not 1 <= days <= _MOST_DAYS:
        raise SettingError(f"days must be in 1..{_MOST_DAYS}, got {days}")
    if passphrase is not None and len(passphrase) < SHORTEST:
        raise SettingError(f"a passphrase must have at least {SHORTEST} characters, got {len(passphrase)}")
    with authority.locked(folder):
        path = _records(folder) / f"{name}.json"
        if path.exists() and read_device(path).revoked is None:
            raise SettingError(f"{name} has a key already: `fedpress keys revoke {name}` first, then issue it anew")
        certificate = authority.load_signed(folder, authority.CERTIFICATE)
        address = _address(authority.hosts_of(certificate), server)
        key = ec.generate_private_key(ec.SECP384R1())
        now = datetime.now(UTC).replace(microsecond=0)
        device = Device(name, _openssh(key.public_key()), now, now + timedelta(days=days))
        enrolment = {
            "schema": SCHEMA,
            "name": name,
            "server": address,
            "ca": authority.pem(authority.load_certificate(folder / authority.CA_CERTIFICATE)).decode(),
            "key": _pkcs8(key, passphrase).decode(),
            "node": _require_node(node or {}),
            "expires": device.expires.isoformat(),
        }
        files.prepare_file(out)
        try:
            files.create(out, b"".join(stamped_json(enrolment)), MODE)
        except FileExistsError as error:
            raise SettingError(f"{out} exists already, and is not overwritten: name another file with --out") from error
        except OSError as error:
            raise DataError(f"{out} cannot be written: {error.strerror}") from error
        try:
            _write(path, device)
        except BaseException:
            out.unlink()
            raise
        return device


def revoke(folder: Path, name: str) -> Device:
    """Revoke a device's key: a running server applies it within seconds. Revoking again changes nothing."""
    require_name(name)
    with authority.locked(folder):
        path = _records(folder) / f"{name}.json"
        if not path.exists():
            known = [found.stem for found in _paths(folder)]
            raise SettingError(
                unknown("device", name, known) if known else f"no device has been issued, {name} neither"
            )
        device = read_device(path)
        if device.revoked is None:
            device = replace(device, revoked=datetime.now(UTC).replace(microsecond=0))
            _write(path, device)
        return device


def load_devices(folder: Path) -> dict[str, Device]:
    """Return all recorded devices by name, sorted."""
    return {path.stem: read_device(path) for path in _paths(folder)}


def read_device(path: Path) -> Device:
    """Return the device of a record file, or raise DataError with the file's name and the reason."""
    try:
        record = {name: value for name, value in read_json(path).items() if name not in FIELD}
        return _device(record, path.stem)
    except (DataError, ValueError) as error:
        reason = str(error).removeprefix(f"{path} ")
        raise DataError(
            f"{path} is no record of a device: {reason}; restore it from a backup, or remove it and issue a new key"
        ) from error


def require_name(name: str) -> None:
    """Raise SettingError unless `name` is a valid device name."""
    if not _NAME.fullmatch(name):
        rule = "1 to 64 of the letters a-z and A-Z, digits, '-', '_' and '.', the first a letter or digit"
        raise SettingError(f"a device's name must be {rule}, got {name!r}")


def load_public_key(text: str) -> ec.EllipticCurvePublicKey:
    """Return the P-384 key of a line in OpenSSH's format, or raise ValueError."""
    key = serialization.load_ssh_public_key(text.encode())
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise ValueError("its key is not on the curve P-384")
    return key


def _device(record: Any, name: str) -> Device:
    """Return the device of a parsed record, or raise ValueError."""
    fields = {"schema", "name", "public_key", "issued", "expires", "revoked"}
    if not isinstance(record, dict) or set(record) != fields:
        raise ValueError(f"it must have the fields {', '.join(sorted(fields))}")
    if record["schema"] != SCHEMA:
        raise ValueError(f"its schema must be {SCHEMA}, got {record['schema']!r}")
    if record["name"] != name or not isinstance(record["public_key"], str):
        raise ValueError(f"its name must be {name!r}, with a public key as text, got {record['name']!r}")
    load_public_key(record["public_key"])
    revoked = record["revoked"] if record["revoked"] is None else _date(record["revoked"])
    return Device(name, record["public_key"], _date(record["issued"]), _date(record["expires"]), revoked)


def _date(text: object) -> datetime:
    date = datetime.fromisoformat(text) if isinstance(text, str) else None
    if date is None or date.tzinfo is None:
        raise ValueError(f"{text!r} is no date with a time zone")
    return date


def _write(path: Path, device: Device) -> None:
    record = {
        "schema": SCHEMA,
        "name": device.name,
        "public_key": device.public_key,
        "issued": device.issued.isoformat(),
        "expires": device.expires.isoformat(),
        "revoked": device.revoked and device.revoked.isoformat(),
    }
    files.replace(path, stamped_json(record), durable=True, mode=MODE, wait=False)


def _paths(folder: Path) -> list[Path]:
    return sorted(_records(folder).glob("*.json"))


def _records(folder: Path) -> Path:
    records = folder / authority.DEVICES
    if not records.is_dir():
        if (folder / authority.CA_CERTIFICATE).exists():
            raise DataError(
                f"{records} is missing: restore it from a backup, or make it anew, empty, and issue new keys"
            )
        raise DataError(f"{folder} is no folder of keys: `fedpress keys init` makes one")
    return records


def _address(hosts: list[str], server: str) -> str:
    """Return the server's address for a device; raise SettingError if the certificate, for `hosts`, is not for it."""
    host, port = parse_address(server) if server else (hosts[0], authority.PORT)
    if authority.canonical(host) not in hosts:
        raise SettingError(
            f"the server's certificate is for {', '.join(hosts)}, not for {host}: `fedpress keys init --renew --host` "
            "makes one for other hosts"
        )
    return join_address(host, port)


def _require_node(node: Mapping[str, Value]) -> dict[str, Value]:
    for key, value in node.items():
        if key == "name":
            raise SettingError("the node's name is the device's: it is not configured")
        if isinstance(value, float) and not math.isfinite(value):
            raise SettingError(f"{key} must be finite, got {value}")
    return dict(node)


def _openssh(key: ec.EllipticCurvePublicKey) -> str:
    return key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()


def _pkcs8(key: ec.EllipticCurvePrivateKey, passphrase: str | None) -> bytes:
    encryption = (
        serialization.NoEncryption()
        if passphrase is None
        else serialization.BestAvailableEncryption(passphrase.encode())
    )
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
