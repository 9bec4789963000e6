"""The authority and the server's certificate: right for a strict verifier, never overwritten, renewed in place."""

import contextlib
import os
import random
import ssl
import stat
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.verification import PolicyBuilder, Store

from fedpress.common.errors import DataError, FolderInUseError, SettingError
from fedpress.server.keys import authority, init, issue, load_devices, renew
from fedpress.server.keys.authority import load_pair


def context(folder: Path) -> ssl.SSLContext:
    """A client's that trusts this authority and no other, as strict as Python 3.13 is by itself."""
    made = ssl.create_default_context(cafile=folder / "ca.pem")
    made.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    return made


def handshake(folder: Path, host: str, trusted: Path | None = None) -> None:
    """Let a client that calls the server `host` shake hands with it, in memory; raise what it raises."""
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(folder / "server.pem", folder / "server.key")
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context(trusted or folder).wrap_bio(to_client, to_server, server_hostname=host)
    server = serving.wrap_bio(to_server, to_client, server_side=True)
    waiting = [client, server]
    for _ in range(10):
        for side in list(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                pass
    assert not waiting


def test_a_strict_verifier_takes_the_server_under_each_of_its_names(tmp_path: Path) -> None:
    hosts = ["fed.example.org", "127.0.0.1", "::1", "localhost"]
    certificate = init(tmp_path / "keys", hosts)
    assert authority.hosts_of(certificate) == hosts
    for host in hosts:
        handshake(tmp_path / "keys", host)
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        handshake(tmp_path / "keys", "other.example.org")
    # A second verifier, which shares no code with OpenSSL's.
    store = Store([authority.load_certificate(tmp_path / "keys" / "ca.pem")])
    verifier = PolicyBuilder().store(store).build_server_verifier(x509.DNSName("fed.example.org"))
    chain = verifier.verify(certificate, [])
    assert [one.subject for one in chain] == [certificate.subject, certificate.issuer]


def test_another_authority_is_not_taken(made: Path, tmp_path: Path) -> None:
    init(tmp_path / "others", ["localhost"])
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(made, "localhost", trusted=tmp_path / "others")


def test_certificates_are_for_what_they_are_used_for_and_no_more(made: Path) -> None:
    ca, server = (authority.load_certificate(made / name) for name in ("ca.pem", "server.pem"))
    for certificate, is_ca in ((ca, True), (server, False)):
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
        assert constraints.critical
        assert usage.critical
        assert constraints.value.ca is usage.value.key_cert_sign is is_ca
        assert usage.value.digital_signature is not is_ca
        assert certificate.not_valid_before_utc < datetime.now(UTC) < certificate.not_valid_after_utc
        assert certificate.not_valid_after_utc <= ca.not_valid_after_utc
    assert list(server.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        x509.oid.ExtendedKeyUsageOID.SERVER_AUTH
    ]
    (issued, own) = (
        server.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value,
        ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value,
    )
    assert issued.key_identifier == own.digest


def test_files_have_their_modes_whatever_the_umask_is(tmp_path: Path) -> None:
    for umask in (0, 0o077):
        before = os.umask(umask)
        try:
            init(tmp_path / str(umask), ["localhost"])
        finally:
            os.umask(before)
        for name, mode in authority.MODES.items():
            assert stat.S_IMODE((tmp_path / str(umask) / name).stat().st_mode) == mode, name


@pytest.mark.parametrize("name", ["ca.key", "ca.pem", "server.key", "server.pem"])
def test_what_is_there_is_never_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("precious")
    with pytest.raises(SettingError, match=name):
        init(tmp_path, ["localhost"])
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "precious"


def test_of_two_at_once_one_wins_whole(tmp_path: Path) -> None:
    ended: list[str] = []

    def run(host: str) -> None:
        with contextlib.suppress(SettingError, FolderInUseError):
            init(tmp_path / "keys", [host])
            ended.append(host)

    threads = [threading.Thread(target=run, args=(f"h{i}.example",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ended) == 1
    handshake(tmp_path / "keys", ended[0])


def test_renewing_keeps_the_authority_and_changes_dates_and_hosts(keys: Path) -> None:
    before = {name: (keys / name).read_bytes() for name in authority.MODES if (keys / name).is_file()}
    old = authority.load_certificate(keys / "server.pem")
    same = renew(keys, days=3)
    assert authority.hosts_of(same) == authority.hosts_of(old)
    assert same.not_valid_after_utc - datetime.now(UTC) < timedelta(days=3, minutes=1)
    renew(keys, ["new.example.org"])
    handshake(keys, "new.example.org")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(keys, "localhost")
    assert {name for name, data in before.items() if (keys / name).read_bytes() != data} == {"server.pem"}


def test_renewing_makes_a_key_where_it_is_lost(keys: Path) -> None:
    (keys / "server.key").unlink()
    renew(keys)
    handshake(keys, "localhost")


def test_renewing_needs_the_authority(keys: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="keys init"):
        renew(tmp_path / "none")
    (keys / "ca.key").write_bytes((keys / "ca.pem").read_bytes())
    with pytest.raises(DataError, match="no unencrypted private key"):
        renew(keys)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "fed.example.org:9443",
        "*.example.org",
        "-a.example",
        "a..b",
        "ü.example",
        "http://a",
        "1.2.3",
        "a b",
        "a" * 64,
    ],
)
def test_a_host_that_is_none_is_named(tmp_path: Path, host: str) -> None:
    with pytest.raises(SettingError, match="DNS name") as error:
        init(tmp_path / "keys", ["localhost", host])
    assert repr(host) in str(error.value)
    assert not (tmp_path / "keys").exists()


@pytest.mark.parametrize("days", [0, -1, 4000])
def test_days_are_within_the_authority_s(tmp_path: Path, keys: Path, days: int) -> None:
    with pytest.raises(SettingError, match=f"got {days}"):
        init(tmp_path / "new", ["localhost"], days=days)
    with pytest.raises(SettingError, match=f"got {days}"):
        renew(keys, days=days)


def test_keys_on_disk_are_of_the_certificates(made: Path) -> None:
    for name in ("ca", "server"):
        key = authority.load_key(made / f"{name}.key").public_key()
        certificate = authority.load_certificate(made / f"{name}.pem").public_key()
        form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        assert key.public_bytes(*form) == certificate.public_bytes(*form)


def test_no_changed_bit_is_believed(keys: Path, tmp_path: Path) -> None:
    """Each file of the folder is as it was written, or it is refused."""

    def read() -> list[object]:
        pairs = [load_pair(keys, *names) for names in (("ca.pem", "ca.key"), ("server.pem", "server.key"))]
        numbers = [(certificate, key.private_numbers()) for certificate, key in pairs]
        return [*numbers, load_devices(keys)]

    issue(keys, "pi-1", tmp_path / "a")
    right, dice = read(), random.Random(0)
    for path in (*keys.glob("*.*"), keys / "devices" / "pi-1.json"):
        data = path.read_bytes()
        for at in (dice.randrange(8 * len(data)) for _ in range(40)):
            path.write_bytes(data[: at // 8] + bytes([data[at // 8] ^ 1 << at % 8]) + data[at // 8 + 1 :])
            with contextlib.suppress(DataError):
                assert read() == right
        path.write_bytes(data)


def missing(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def no_text(path: Path) -> None:
    path.write_bytes(b"\xff\xfe")


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [missing, cut, no_text, directory])
@pytest.mark.parametrize("name", ["ca.key", "ca.pem", "server.key", "server.pem", "devices/pi-1.json"])
def test_a_damaged_file_is_named_by_what_needs_it_and_nothing_is_lost(
    name: str, damage: Callable[[Path], None], keys: Path, tmp_path: Path
) -> None:
    issue(keys, "pi-1", tmp_path / "a")
    damage(keys / name)

    def content() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    calls: dict[str, Callable[[], object]] = {
        "ca.key ca.pem server.key server.pem": lambda: renew(keys),
        "ca.pem server.pem": lambda: issue(keys, "pi-2", tmp_path / "b"),
        "devices/pi-1.json": lambda: load_devices(keys),
    }
    for needs, call in calls.items():
        before = content()
        replaced = damage is missing and name in ("server.key", "devices/pi-1.json")  # by a new one, or left out
        if name in needs.split() and not replaced:
            with pytest.raises(DataError, match=name):
                call()
            assert content() == before
        else:
            call()


def test_a_folder_without_records_is_named(keys: Path, tmp_path: Path) -> None:
    (keys / "devices").rmdir()
    with pytest.raises(DataError, match="devices"):
        issue(keys, "pi-1", tmp_path / "a")
    assert not (tmp_path / "a").exists()
