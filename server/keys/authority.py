"""A private certificate authority, and the one certificate that it signs: the server's.

A device trusts this authority and no other. Both certificates have the extensions that Python 3.13's strict
verification (RFC 5280) requires: key usages, basic constraints, and key identifiers.
"""

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedpress.common import files
from fedpress.common.errors import DataError, SettingError
from fedpress.common.files import create, replace

PORT = 9443  # the server's default
CA_CERTIFICATE, CA_KEY, CERTIFICATE, KEY, DEVICES = "ca.pem", "ca.key", "server.pem", "server.key", "devices"
MODES = {".": 0o700, CA_CERTIFICATE: 0o644, CA_KEY: 0o600, CERTIFICATE: 0o644, KEY: 0o600, DEVICES: 0o700}
CA_DAYS = 3650
SERVER_DAYS = 730
_BACKUP = "restore it from a backup; without one, make keys in another folder, and issue all devices' keys anew"
_REMEDIES = {
    CERTIFICATE: "`fedpress keys init --renew --host HOST` makes a new one",
    KEY: "delete it, and `fedpress keys init --renew` makes a new one",
}
_EARLIER = timedelta(hours=1)  # for devices whose clocks are behind
_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)", re.ASCII)


def init(folder: Path, hosts: Sequence[str], *, days: int = SERVER_DAYS) -> x509.Certificate:
    """Make the authority, and the certificate of a server with these `hosts`, names or addresses.

    Raises
    ------
    SettingError
        If a host is invalid, `hosts` is empty, or `folder` holds keys: they are never overwritten.
    FolderInUseError
        If another process makes keys in it.
    """
    names = _general_names(hosts)
    _require_days(days, CA_DAYS)
    folder.mkdir(mode=MODES["."], parents=True, exist_ok=True)
    with files.locked(folder, "command that makes keys"):
        return _init(folder, names, days)


def _init(folder: Path, names: list[x509.GeneralName], days: int) -> x509.Certificate:
    now = _now()
    for name in (CA_KEY, CA_CERTIFICATE, KEY, CERTIFICATE):
        if (folder / name).exists():
            raise SettingError(
                f"{folder / name} exists already, and keys are never overwritten: name another folder with --keys, "
                "or make a new server certificate from these with --renew"
            )
    folder.chmod(MODES["."])
    (folder / DEVICES).mkdir(mode=MODES[DEVICES], exist_ok=True)
    (folder / DEVICES).chmod(MODES[DEVICES])
    authority, key = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP256R1())
    ca = _authority_certificate(authority, now)
    certificate = _server_certificate(key.public_key(), ca, authority, names, now, days)
    content = {CA_KEY: _key_pem(authority), CA_CERTIFICATE: pem(ca), KEY: _key_pem(key), CERTIFICATE: pem(certificate)}
    try:
        for name, data in content.items():
            create(folder / name, data, MODES[name])
    except BaseException:
        for name in content:  # none of them was there before
            (folder / name).unlink(missing_ok=True)
        raise
    return certificate


def renew(folder: Path, hosts: Sequence[str] = (), *, days: int = SERVER_DAYS) -> x509.Certificate:
    """Sign a new certificate for the server's key, for the same hosts if none are given; devices need no change.

    A server reads it when it starts.
    """
    with locked(folder):
        ca, authority = load_pair(folder, CA_CERTIFICATE, CA_KEY)
        now = _now()
        _require_days(days, (ca.not_valid_after_utc - now).days)
        names = _general_names(hosts or hosts_of(load_certificate(folder / CERTIFICATE)))
        if not (folder / KEY).exists():
            create(folder / KEY, _key_pem(ec.generate_private_key(ec.SECP256R1())), MODES[KEY])
        key = load_key(folder / KEY)
        certificate = _server_certificate(key.public_key(), ca, authority, names, now, days)
        replace(folder / CERTIFICATE, pem(certificate), durable=True, mode=MODES[CERTIFICATE], wait=False)
        return certificate


def hosts_of(certificate: x509.Certificate) -> list[str]:
    """Return the names and addresses that a certificate is for."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in found]


def canonical(host: str) -> str:
    """Return a name or address in the form of `hosts_of`, or raise SettingError if it is neither."""
    return str(_general_name(host).value)


def load_certificate(path: Path) -> x509.Certificate:
    """Return the certificate in a file, or raise DataError."""
    try:
        return x509.load_pem_x509_certificate(_read(path))
    except ValueError as error:
        raise DataError(f"{path} holds no certificate in PEM: {_remedy(path)}") from error


def load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Return the private key in a file, or raise DataError."""
    try:
        key = serialization.load_pem_private_key(_read(path), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise DataError(f"{path} holds no unencrypted private key in PEM: {_remedy(path)}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise DataError(f"{path} holds a key of another kind than fedpress makes: {_remedy(path)}")
    return key


def load_pair(folder: Path, certificate: str, key: str) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Return a certificate in `folder` and its private key; raise DataError if they do not belong together."""
    signed, private = load_signed(folder, certificate), load_key(folder / key)
    if private.public_key() != signed.public_key():
        raise DataError(f"{folder / certificate} is not for the key in {key}: {_remedy(folder / certificate)}")
    return signed, private


def load_signed(folder: Path, name: str) -> x509.Certificate:
    """Return a certificate in `folder`; raise DataError if the authority there has not signed it and itself."""
    authority = load_certificate(folder / CA_CERTIFICATE)
    for path in (folder / CA_CERTIFICATE, folder / name):
        certificate = load_certificate(path)
        try:
            certificate.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
            raise DataError(f"{path} is not signed by the authority in {CA_CERTIFICATE}: {_remedy(path)}") from error
    return certificate


def pem(certificate: x509.Certificate) -> bytes:
    """Return a certificate in PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def _read(path: Path) -> bytes:
    """Return the content of a file in the folder of keys, or raise DataError."""
    try:
        return path.read_bytes()
    except OSError as error:
        if not any((path.parent / name).exists() for name in (CA_KEY, CA_CERTIFICATE)):
            raise DataError(f"{path.parent} holds no keys: `fedpress keys init` makes a folder of keys") from error
        raise DataError(f"{path} cannot be read: {error.strerror}: {_remedy(path)}") from error


def _remedy(path: Path) -> str:
    return _REMEDIES.get(path.name, _BACKUP)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold an exclusive lock on the folder of keys; another process waits, as changes are quick."""
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder of keys: `fedpress keys init` makes one")
    with files.locked(folder, wait=math.inf):
        yield


def _authority_certificate(key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    # Each authority has a unique name, so that verifiers do not confuse two of them.
    name = _name(f"fedpress authority {identifier.digest.hex()[:16]}")
    return (
        _certificate(key.public_key(), name, name, now, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(key, hashes.SHA384())
    )


def _server_certificate(
    public_key: ec.EllipticCurvePublicKey,
    ca: x509.Certificate,
    authority: ec.EllipticCurvePrivateKey,
    names: list[x509.GeneralName],
    now: datetime,
    days: int,
) -> x509.Certificate:
    issuer = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return (
        _certificate(public_key, _name("fedpress server"), ca.subject, now, days)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False)
        .sign(authority, hashes.SHA384())
    )


def _certificate(
    public_key: ec.EllipticCurvePublicKey, subject: x509.Name, issuer: x509.Name, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + timedelta(days=days))
    )


def _usage(**uses: bool) -> x509.KeyUsage:
    every = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    names = (*every, "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
    return x509.KeyUsage(**{name: uses.get(name, False) for name in names})


def _general_names(hosts: Sequence[str]) -> list[x509.GeneralName]:
    if not hosts:
        raise SettingError("host must be given: the name or address of the server for devices, e.g. --host HOST")
    return list(dict.fromkeys(map(_general_name, hosts)))


def _general_name(host: str) -> x509.IPAddress | x509.DNSName:
    try:
        return x509.IPAddress(ip_address(host.removeprefix("[").removesuffix("]")))
    except ValueError:
        pass
    name = host.lower().removesuffix(".")
    labels = name.split(".")
    if len(name) > 253 or not all(map(_LABEL.fullmatch, labels)) or labels[-1].isdigit():
        raise SettingError(f"host must be a DNS name in ASCII or an IP address, without a port, got {host!r}")
    return x509.DNSName(name)


def _require_days(days: int, most: int) -> None:
    if not 1 <= days <= most:
        raise SettingError(f"days must be in 1..{most}, the days left of the authority, got {days}")


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
