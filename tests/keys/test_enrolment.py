"""An enrolment file: what `issue` wrote is read back, and each way in which it can be wrong has its own one line."""

import contextlib
import json
import logging
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpress.client.edge.enrolment import (
    Enrolment,
    load,
    parse_enrolment,
    read_enrolment,
    require_current,
)
from fedpress.common.errors import EnrolmentError, PassphraseError
from fedpress.server.keys import issue

SECRET = "correct horse battery"


@pytest.fixture(scope="module")
def files(made: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Two enrolments as `issue` writes them: one plain, one encrypted."""
    folder = tmp_path_factory.mktemp("files")
    keys = Path(shutil.copytree(made, folder / "keys"))
    issue(keys, "plain", folder / "plain", node={"partition-id": 1, "who": "}"})
    issue(keys, "sealed", folder / "sealed", passphrase=SECRET)
    return {name: (folder / name).read_bytes() for name in ("plain", "sealed")}


def changed(data: bytes, **fields: object) -> bytes:
    return json.dumps({**json.loads(without(data, "checksum")), **fields}).encode()


def without(data: bytes, field: str) -> bytes:
    record = {name: value for name, value in json.loads(data).items() if name not in (field, "checksum")}
    return json.dumps(record).encode()


def pem(key: Any) -> str:
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return str(key.private_bytes(*form).decode())


Files = dict[str, bytes]
WRONG: dict[str, tuple[Callable[[Files], bytes], str]] = {
    "empty": (lambda files: b"", "cut short"),
    "half": (lambda files: files["plain"][: len(files["plain"]) // 2], "cut short"),
    "no JSON": (lambda files: b"-----BEGIN CERTIFICATE-----", "not JSON"),
    "no text": (lambda files: b"\xff\xfe\x00", "not JSON"),
    "nested": (lambda files: b"[" * 100_000, "not JSON"),
    "a list": (lambda files: b"[]", "no object"),
    "a later schema": (lambda files: changed(files["plain"], schema=2), "schema 2"),
    "no key": (lambda files: without(files["plain"], "key"), "has no key"),
    "no name": (lambda files: without(files["plain"], "name"), "has no name"),
    "a field more": (lambda files: changed(files["plain"], more=1), "'more'"),
    "name is a number": (lambda files: changed(files["plain"], name=1), "its name is no text"),
    "a name that leads elsewhere": (lambda files: changed(files["plain"], name="../pi"), "no device's name"),
    "an address without a port": (lambda files: changed(files["plain"], server="fed.example.org"), "HOST:PORT"),
    "no authority": (lambda files: changed(files["plain"], ca="none"), "no certificate"),
    "an authority cut short": (
        lambda files: changed(files["plain"], ca=json.loads(files["plain"])["ca"][:300]),
        "no certificate",
    ),
    "no private key": (lambda files: changed(files["plain"], key="none"), "no private key"),
    "a private key cut short": (
        lambda files: changed(files["plain"], key=json.loads(files["plain"])["key"][:150]),
        "no private key",
    ),
    "another curve": (
        lambda files: changed(files["plain"], key=pem(ec.generate_private_key(ec.SECP256R1()))),
        "wrong curve: secp384r1 is right, got secp256r1",
    ),
    "another kind of key": (
        lambda files: changed(files["plain"], key=pem(rsa.generate_private_key(65537, 2048))),
        "wrong curve",
    ),
    "a node that is a list": (lambda files: changed(files["plain"], node=[1]), "its node"),
    "a node that is deep": (lambda files: changed(files["plain"], node={"a": {}}), "its node"),
    "a number that is none": (lambda files: changed(files["plain"], node={"a": float("nan")}), "not JSON"),
    "a number beyond all": (
        lambda files: without(files["plain"], "").replace(b'"partition-id": 1', b'"p": 1e999'),
        "not finite",
    ),
    "no date": (lambda files: changed(files["plain"], expires="soon"), "expires is no date, got 'soon'"),
    "no zone": (lambda files: changed(files["plain"], expires="2030-01-01"), "no time zone"),
    "expired": (lambda files: changed(files["plain"], expires="2020-01-01T00:00:00+00:00"), "expired at 2020-01-01"),
    "no passphrase": (lambda files: files["sealed"], "needs a passphrase"),
}


@pytest.mark.parametrize("way", WRONG)
def test_each_way_to_be_wrong_has_its_line(files: Files, tmp_path: Path, way: str) -> None:
    make, said = WRONG[way]
    path = tmp_path / "it"
    path.touch(0o600)
    path.write_bytes(make(files))
    with pytest.raises(EnrolmentError) as error:
        read_enrolment(path)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_no_two_ways_are_told_alike() -> None:
    said = [line for _, line in WRONG.values()]
    assert len(set(said)) >= 16


def test_a_file_that_is_cut_anywhere_says_so(files: Files) -> None:
    whole = files["plain"].strip()
    for length in range(len(whole)):
        with pytest.raises(EnrolmentError, match="cut short"):
            parse_enrolment(whole[:length])


@settings(deadline=None)
@given(data=st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode()))
def test_whatever_the_bytes_are_the_error_is_ours(data: bytes) -> None:
    with pytest.raises(EnrolmentError):
        parse_enrolment(data)


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@settings(max_examples=200, deadline=None)
@given(at=st.integers(0), byte=st.integers(0, 255))
def test_a_byte_that_is_changed_is_an_error_of_ours_or_changes_nothing(files: Files, at: int, byte: int) -> None:
    data = bytearray(files["plain"])
    data[at % len(data)] = byte
    with contextlib.suppress(EnrolmentError):
        assert content(parse_enrolment(bytes(data))) == content(parse_enrolment(files["plain"]))


def content(enrolment: Enrolment) -> tuple[object, ...]:
    key = enrolment.key.private_numbers()
    return enrolment.name, enrolment.server, enrolment.ca, key, enrolment.node, enrolment.expires


def test_a_file_that_an_editor_saved_is_read_as_it_was(files: Files) -> None:
    saved = b"\xef\xbb\xbf" + files["plain"].replace(b"\n", b"\r\n") + b"\r\n"
    assert content(parse_enrolment(saved)) == content(parse_enrolment(files["plain"]))


def test_a_passphrase_opens_and_no_other_does(files: Files) -> None:
    assert parse_enrolment(files["sealed"], SECRET).name == "sealed"
    for wrong in ("", SECRET + " ", "x"):
        with pytest.raises(PassphraseError):
            parse_enrolment(files["sealed"], wrong)
    assert parse_enrolment(files["plain"], SECRET).name == "plain"  # it needs none, and minds none


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o601, 0o666, 0o777])
def test_a_file_that_others_may_open_is_refused(files: Files, tmp_path: Path, mode: int) -> None:
    path = tmp_path / "open"
    path.write_bytes(files["plain"])
    path.chmod(mode)
    with pytest.raises(EnrolmentError, match=rf"mode {mode:04o}.*chmod 600 {path}"):
        read_enrolment(path)
    for closed in (0o600, 0o400):
        path.chmod(closed)
        assert read_enrolment(path).name == "plain"


def test_a_service_s_credential_is_kept_by_systemd(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "enrolment"
    path.write_bytes(files["plain"])
    path.chmod(0o440)  # what an ACL for the service's user looks like
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert read_enrolment(path).name == "plain"
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "other"))
    with pytest.raises(EnrolmentError, match="chmod"):
        read_enrolment(path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for path, said in ((tmp_path, "no file"), (tmp_path / "none", "keys issue")):
        with pytest.raises(EnrolmentError, match=said):
            load(path)
    big = tmp_path / "big"
    big.touch(0o600)
    big.write_bytes(b" " * ((1 << 20) + 1))
    with pytest.raises(EnrolmentError, match="1,048,577 bytes"):
        load(big)


def test_it_expires_by_the_device_s_clock_and_says_so(files: Files) -> None:
    enrolment = parse_enrolment(files["plain"])
    require_current(enrolment)
    require_current(enrolment, enrolment.expires - timedelta(seconds=1))
    with pytest.raises(EnrolmentError, match="by this device's clock"):
        require_current(enrolment, enrolment.expires)
    assert enrolment.expires - datetime.now(UTC) < timedelta(days=365)


def test_nothing_secret_is_shown_or_logged(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secrets = [json.loads(files[name])["key"].split("\n")[1] for name in files]
    shown = [repr(parse_enrolment(files["plain"])), str(parse_enrolment(files["sealed"], SECRET))]
    half = json.loads(files["plain"])["key"][:150]
    for data in (files["sealed"], changed(files["plain"], key=half), files["plain"][:-20]):
        with pytest.raises(EnrolmentError) as error:
            parse_enrolment(data, SECRET + "!")
        shown += [repr(error.value), repr(error.value.__cause__)]
    text = "".join([*shown, caplog.text])
    assert not any(secret[:20] in text for secret in (*secrets, SECRET))
