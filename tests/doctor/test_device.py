"""A device's doctor against real servers on loopback: each fault is found where it is, and says what to do."""

import socket
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE
from flwr.supercore.error.base import ApiErrorCode

from fedpress.client.edge import doctor, server_probe
from fedpress.client.edge.doctor import inspect_device
from fedpress.common import files
from fedpress.common.checked_files import read_json, stamped_json
from fedpress.common.diagnostics import Finding
from fedpress.server.keys import authority, init, issue, renew

from .conftest import Answers, serving

Found = dict[str, Finding]


def inspect(enrolment: Path, port: int, host: str = "localhost", **options: str) -> Found:
    found = list(inspect_device(enrolment, state=enrolment.parent, server=f"{host}:{port}", **options))
    for finding in found:
        assert bool(finding.advice) == (finding.status != "ok"), finding
        assert "\n" not in finding.seen + finding.advice
    return {finding.check: finding for finding in found}


def bad(found: Found) -> dict[str, str]:
    return {name: finding.status for name, finding in found.items() if finding.status != "ok"}


def test_where_all_is_well_nothing_is_said_to_do(keys: Path, enrolment: Path) -> None:
    answers = Answers()
    with serving(answers, keys) as port:
        found = inspect(enrolment, port)
    assert bad(found) == {}
    assert list(found) == [
        *("python", "fedpress", "flwr", "torch", "disk", "memory", "enrolment", "enrolment's date", "address"),
        *("reachable", "TLS", "certificate's date", "clock", "versions", "key"),
    ]
    assert answers.asked == ["/v1/fedpress", "/v1/fleet/activate-node"]


def test_another_authority(keys: Path, enrolment: Path, tmp_path: Path) -> None:
    init(tmp_path / "others", ["localhost"])
    answers = Answers()
    with serving(answers, tmp_path / "others") as port:
        found = inspect(enrolment, port)
    assert bad(found) == {"TLS": "failure"}
    assert "not from the enrolment's authority" in found["TLS"].seen
    assert answers.asked == []  # a server that is not trusted is told nothing


def test_another_name(keys: Path, enrolment: Path) -> None:
    answers = Answers()
    with serving(answers, keys) as port:
        found = inspect(enrolment, port, host="127.0.0.1")
    assert bad(found) == {"TLS": "failure"}
    assert "not for 127.0.0.1" in found["TLS"].seen
    assert "--renew --host 127.0.0.1" in found["TLS"].advice
    assert answers.asked == []


@pytest.mark.parametrize(("days", "said"), [(-800, "has expired"), (30, "does not hold yet")])
def test_a_certificate_out_of_its_dates_and_what_the_clocks_say(
    keys: Path, enrolment: Path, monkeypatch: pytest.MonkeyPatch, days: int, said: str
) -> None:
    monkeypatch.setattr(authority, "_now", lambda: datetime.now(UTC) + timedelta(days=days))
    renew(keys, days=400)
    answers = Answers(ahead=lambda: datetime.now(UTC) + timedelta(days=days))
    with serving(answers, keys) as port:
        found = inspect(enrolment, port)
    # It is one of the two clocks that is wrong, and that is shown; no key is.
    assert bad(found) == {"TLS": "failure", "clock": "failure"}
    assert said in found["TLS"].seen
    assert answers.asked == ["/v1/fedpress"]


def test_a_certificate_that_ends_soon(keys: Path, enrolment: Path) -> None:
    renew(keys, days=10)
    with serving(Answers(), keys) as port:
        found = inspect(enrolment, port)
    assert bad(found) == {"certificate's date": "warning"}
    assert "--renew" in found["certificate's date"].advice


@pytest.mark.parametrize("iso", [True, False])
@pytest.mark.parametrize(
    ("seconds", "status"),
    [(86_400, "failure"), (-86_400, "failure"), (400, "failure"), (200, "warning"), (-60, "failure"), (30, "ok")],
)
def test_a_clock_that_is_off(keys: Path, enrolment: Path, seconds: int, status: str, iso: bool) -> None:
    answers = Answers(ahead=lambda: datetime.now(UTC) + timedelta(seconds=seconds), iso=iso)
    with serving(answers, keys) as port:
        found = inspect(enrolment, port)
    assert found["clock"].status == status
    assert ("behind" if seconds > 0 else "ahead of") in found["clock"].seen
    assert status == "ok" or "set the clock" in found["clock"].advice


def test_the_bounds_of_the_clock_are_flower_s() -> None:
    assert (doctor.AHEAD, doctor.BEHIND) == (SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE)


def test_flower_s_codes_are_those_that_are_asked_for() -> None:
    codes = (ApiErrorCode.FLEET_INVALID_HEARTBEAT_INTERVAL, ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED)
    assert codes == (server_probe._KNOWN, server_probe._UNREGISTERED)


def test_a_server_that_tells_neither_time_nor_versions(keys: Path, enrolment: Path) -> None:
    with serving(Answers(versions=None, iso=False, date=False), keys) as port:
        found = inspect(enrolment, port)
    assert bad(found) == {"clock": "warning", "versions": "warning"}


@pytest.mark.parametrize(
    ("theirs", "status"),
    [
        ({"flwr": "1.40.2"}, "failure"),
        ({"flwr": "1.41.9"}, "ok"),
        ({"fedpress": "9.0.0"}, "warning"),
        ({"flwr": ""}, "warning"),
    ],
)
def test_versions(keys: Path, enrolment: Path, theirs: dict[str, str], status: str) -> None:
    answers = Answers()
    with serving(replace(answers, versions={**(answers.versions or {}), **theirs}), keys) as port:
        found = inspect(enrolment, port)
    assert found["versions"].status == status


@pytest.mark.parametrize(
    ("cause", "status", "body", "told", "advice"),
    [
        ("unknown", 401, {"detail": "this key is not enrolled here"}, "failure", "folder of keys"),
        ("revoked", 401, {"detail": "the key of pi-1 is revoked"}, "failure", "keys issue pi-1"),
        ("expired", 401, {"detail": "the key of pi-1 is expired"}, "failure", "keys issue pi-1"),
        ("stale", 401, {"detail": "the clock of pi-1 is 900 s behind"}, "failure", "set the clock"),
        ("away", 503, {"detail": "the server restarts"}, "warning", "ask again"),
        ("", 503, {"detail": "overloaded"}, "warning", "ask again"),
        ("", 400, {"code": 2004, "detail": "no such key"}, "warning", "ask again"),
        ("", 401, {"detail": "Invalid SuperNode authentication"}, "failure", "server.log"),
        ("", 412, {"code": 1001, "detail": "incompatible"}, "failure", "version of flwr"),
    ],
)
def test_what_the_server_says_to_the_key(
    keys: Path, enrolment: Path, cause: str, status: int, body: dict[str, object], told: str, advice: str
) -> None:
    with serving(Answers(cause=cause, status=status, body=body), keys) as port:
        found = inspect(enrolment, port)
    assert bad(found) == {"key": told}
    assert advice in found["key"].advice


def test_a_port_that_is_closed(enrolment: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and never listens
        found = inspect(enrolment, taken.getsockname()[1])
    assert bad(found) == {"reachable": "failure"}
    assert "nothing listens" in found["reachable"].seen


def test_a_port_that_does_not_speak_tls(enrolment: Path) -> None:
    with serving(Answers(), None) as port:
        found = inspect(enrolment, port)
    assert bad(found) == {"TLS": "failure"}
    assert "does not speak TLS" in found["TLS"].seen


def test_a_port_that_says_nothing(enrolment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_probe, "_WAIT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        found = inspect(enrolment, server.getsockname()[1])
    assert bad(found) == {"TLS": "failure"}


def test_a_name_that_is_not_resolved(enrolment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    found = inspect(enrolment, 1, host="nowhere.invalid")
    assert bad(found) == {"address": "failure"}
    assert "nowhere.invalid" in found["address"].seen


def _open(path: Path) -> None:
    path.chmod(0o644)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:300])


@pytest.mark.parametrize(("harm", "said"), [(_open, "chmod 600"), (_cut, "cut short"), (Path.unlink, "not there")])
def test_an_enrolment_that_cannot_be_read(enrolment: Path, harm: Callable[[Path], None], said: str) -> None:
    harm(enrolment)
    found = inspect(enrolment, 1)
    assert bad(found) == {"enrolment": "failure"}
    assert said in found["enrolment"].seen


def test_an_enrolment_that_has_expired_is_said_and_the_rest_is_checked(
    keys: Path, enrolment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = read_json(enrolment)
    files.replace(enrolment, stamped_json({**record, "expires": "2020-01-01T00:00:00+00:00"}), mode=0o600)
    with serving(Answers(), keys) as port:
        found = inspect(enrolment, port)
    assert bad(found) == {"enrolment's date": "failure"}


def test_a_passphrase(keys: Path, tmp_path: Path) -> None:
    issue(keys, "pi-2", tmp_path / "sealed", passphrase="correct horse")
    with serving(Answers(), keys) as port:
        assert bad(inspect(tmp_path / "sealed", port)) == {"enrolment": "failure"}
        assert bad(inspect(tmp_path / "sealed", port, passphrase="wrong horse")) == {"enrolment": "failure"}
        assert bad(inspect(tmp_path / "sealed", port, passphrase="correct horse")) == {}
