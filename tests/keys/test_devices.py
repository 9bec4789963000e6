"""Devices: a name is given once, revoked for good, and its record and enrolment agree."""

import contextlib
import json
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, uses_nist_ec_curve
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpress.client.edge.enrolment import read_enrolment
from fedpress.common.errors import DataError, SettingError
from fedpress.server.keys import devices as module
from fedpress.server.keys import issue, load_devices, revoke


def test_record_and_enrolment_agree(keys: Path, tmp_path: Path) -> None:
    node = {"partition-id": 3, "room": "kitchen", "share": 0.5, "mains": True}
    device = issue(keys, "pi-1", tmp_path / "pi-1.enrol", server="127.0.0.1:1234", node=node)
    enrolment = read_enrolment(tmp_path / "pi-1.enrol")
    assert (enrolment.name, enrolment.server, enrolment.node) == ("pi-1", "127.0.0.1:1234", node)
    assert enrolment.address == ("127.0.0.1", 1234)
    assert enrolment.expires == device.expires
    assert enrolment.ca == (keys / "ca.pem").read_bytes()
    form = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert enrolment.key.public_key().public_bytes(*form) == device.pem
    assert load_devices(keys) == {"pi-1": device}
    for path in (tmp_path / "pi-1.enrol", keys / "devices" / "pi-1.json"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    fields = {"schema", "name", "public_key", "issued", "expires", "revoked", "checksum"}
    assert set(json.loads((keys / "devices" / "pi-1.json").read_bytes())) == fields


def test_the_key_is_of_the_kind_that_flower_takes(keys: Path, tmp_path: Path) -> None:
    device = issue(keys, "pi-1", tmp_path / "a")
    assert uses_nist_ec_curve(bytes_to_public_key(device.pem))
    assert device.public_key.startswith("ecdsa-sha2-nistp384 ")


def test_without_an_address_it_is_the_certificate_s_first(keys: Path, tmp_path: Path) -> None:
    issue(keys, "pi-1", tmp_path / "a")
    assert read_enrolment(tmp_path / "a").server == "localhost:9443"


def test_no_secret_of_a_device_stays_with_the_server(keys: Path, tmp_path: Path) -> None:
    before = set(keys.rglob("*"))
    issue(keys, "pi-1", tmp_path / "a", passphrase="correct horse")
    (record,) = set(keys.rglob("*")) - before
    assert "PRIVATE" not in record.read_text()
    assert "correct horse" not in record.read_text() + (tmp_path / "a").read_text()


def test_a_name_is_never_given_twice_and_anew_only_when_revoked(keys: Path, tmp_path: Path) -> None:
    first = issue(keys, "pi-1", tmp_path / "a")
    with pytest.raises(SettingError, match="revoke pi-1"):
        issue(keys, "pi-1", tmp_path / "b")
    assert not (tmp_path / "b").exists()
    gone = revoke(keys, "pi-1")
    assert (first.state(), gone.state()) == ("valid", "revoked")
    assert revoke(keys, "pi-1") == gone
    anew = issue(keys, "pi-1", tmp_path / "b")
    assert anew.public_key != first.public_key
    assert load_devices(keys) == {"pi-1": anew}


def test_of_many_who_ask_for_one_name_at_once_one_gets_it(keys: Path, tmp_path: Path) -> None:
    ended: list[str] = []

    def run(i: int) -> None:
        with contextlib.suppress(SettingError):
            ended.append(issue(keys, "pi-1", tmp_path / f"{i}.enrol").public_key)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ended == [load_devices(keys)["pi-1"].public_key]
    assert len(list(tmp_path.glob("*.enrol"))) == 1


def test_an_enrolment_is_not_overwritten_and_its_name_not_used_up(keys: Path, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("precious")
    with pytest.raises(SettingError, match="--out"):
        issue(keys, "pi-1", tmp_path / "a")
    assert (tmp_path / "a").read_text() == "precious"
    with pytest.raises(SettingError, match="none"):
        issue(keys, "pi-1", tmp_path / "a" / "none" / "b")
    assert load_devices(keys) == {}
    issue(keys, "pi-1", tmp_path / "b")


def test_an_enrolment_without_a_record_does_not_stay(
    keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.files, "replace", full)
    with pytest.raises(OSError, match="No space"):
        issue(keys, "pi-1", tmp_path / "a")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("server", ["other.example:1", "localhost", "localhost:0", "localhost:65536", ":1", "::1:9"])
def test_an_address_that_the_certificate_is_not_for_is_refused(keys: Path, tmp_path: Path, server: str) -> None:
    with pytest.raises(SettingError):
        issue(keys, "pi-1", tmp_path / "a", server=server)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("name", ["", ".", "..", "-x", "a/b", "a b", "ü", "a\n", "a" * 65, "../ca", "a\0"])
def test_a_name_that_is_none_is_refused(keys: Path, tmp_path: Path, name: str) -> None:
    for call in (lambda: issue(keys, name, tmp_path / "a"), lambda: revoke(keys, name)):
        with pytest.raises(SettingError, match="a device's name must be"):
            call()
    assert not (tmp_path / "a").exists()


@settings(deadline=None)
@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True))
def test_a_name_of_these_letters_is_one(name: str) -> None:
    module.require_name(name)


def test_an_unknown_device_gets_its_near_misses(keys: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="no device has been issued"):
        revoke(keys, "pi-1")
    issue(keys, "pi-1", tmp_path / "a")
    with pytest.raises(SettingError, match="did you mean 'pi-1'"):
        revoke(keys, "pi-2")


def test_what_a_node_is_configured_by_is_checked(keys: Path, tmp_path: Path) -> None:
    for node in ({"name": "other"}, {"x": float("nan")}):
        with pytest.raises(SettingError):
            issue(keys, "pi-1", tmp_path / "a", node=node)
    with pytest.raises(SettingError, match="at least 8"):
        issue(keys, "pi-1", tmp_path / "a", passphrase="short")
    with pytest.raises(SettingError, match="got 0"):
        issue(keys, "pi-1", tmp_path / "a", days=0)
    assert list((keys / "devices").iterdir()) == []


def test_a_device_expires(keys: Path, tmp_path: Path) -> None:
    device = issue(keys, "pi-1", tmp_path / "a", days=1)
    now = datetime.now(UTC)
    assert device.state(now) == "valid"
    assert device.state(now + timedelta(days=1)) == "expired"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("schema", 2),
        ("name", "other"),
        ("public_key", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE3GRl2xqg1ziZ2lUbFJd3Cu8IzO4M3yKPkYEDMqLnV6"),
        ("public_key", "nonsense"),
        ("public_key", 5),
        ("issued", "yesterday"),
        ("expires", "2030-01-01T00:00:00"),
        ("revoked", 0),
        ("more", 1),
    ],
)
def test_a_broken_record_is_named_with_its_fault(keys: Path, tmp_path: Path, field: str, value: object) -> None:
    issue(keys, "pi-1", tmp_path / "a")
    path = keys / "devices" / "pi-1.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    with pytest.raises(DataError, match=r"pi-1\.json is no record of a device"):
        load_devices(keys)


def test_a_folder_without_keys_is_named(tmp_path: Path) -> None:
    for call in (load_devices, lambda folder: issue(folder, "a", tmp_path / "a"), lambda folder: revoke(folder, "a")):
        with pytest.raises(DataError, match="keys init"):
            call(tmp_path / "none")
