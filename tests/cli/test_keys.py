"""`fedpress keys`: what each command leaves, what it says, and that no secret is ever said."""

import json
import os
import re
import shlex
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedpress.cli.console.passphrase import VARIABLE
from fedpress.client.edge.enrolment import read_enrolment
from fedpress.common.errors import PassphraseError

from .conftest import Call, finish, start

INIT = ("keys", "init", "--host", "fed.example.org", "--host", "192.0.2.7")
COMMANDS = ("init", "issue", "revoke", "list")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_an_example_that_works(call: Call, command: str) -> None:
    help_text = call("keys", command, "--help")
    assert help_text.code == 0
    found = re.search(r"Example: fedpress (.*?)\n\s*\n", help_text.out, re.DOTALL)
    assert found
    example = shlex.split(found[1])
    if command != "init":
        call(*INIT)
    if command == "revoke":
        call("keys", "issue", "pi-1")
    assert call(*example).code == 0


def test_from_keys_to_a_device_and_out_again(call: Call, empty: Path) -> None:
    said = call(*INIT, "--days", "100")
    assert said.code == 0
    assert "fed.example.org, 192.0.2.7" in said.out
    assert call("keys", "issue", "pi-1", "--node", "partition-id=3", "--node", "room=attic").code == 0
    assert read_enrolment(empty / "pi-1.enrol").node == {"partition-id": 3, "room": "attic"}
    assert call("keys", "issue", "pi-2", "--out", "second", "--days", "5").code == 0
    assert call("keys", "revoke", "pi-1").code == 0
    table = call("keys", "list").out
    assert re.search(r"pi-1\W+revoked", table)
    assert re.search(r"pi-2\W+valid", table)
    rows = json.loads(call("keys", "list", "--json").out)
    assert [(row["name"], row["state"], row["days"]) for row in rows] == [
        ("pi-1", "revoked", 364),
        ("pi-2", "valid", 4),
    ]
    assert call(*INIT, "--renew").code == 0
    assert sorted(path.name for path in empty.iterdir()) == ["keys", "pi-1.enrol", "second"]


@pytest.mark.parametrize(
    ("words", "code", "named"),
    [
        (["init"], 2, "--host"),
        (["init", "--host", "a b"], 2, "'a b'"),
        (["init", "--host", "other.example"], 2, "never overwritten"),
        (["init", "--renew", "--keys", "none"], 2, "got none"),
        (["issue", "a/b"], 2, "'a/b'"),
        (["issue", "old"], 2, "keys revoke old"),
        (["issue", "new", "--node", "room"], 2, "'room'"),
        (["issue", "new", "--node", "name=x"], 2, "name"),
        (["issue", "new", "--server", "elsewhere.example:1"], 2, "elsewhere.example"),
        (["issue", "new", "--passphrase"], 2, VARIABLE),
        (["issue", "new", "--out", "old.enrol"], 2, "old.enrol"),
        (["issue", "new", "--out", "old.enrol/new.enrol"], 2, "old.enrol"),
        (["issue", "new", "--out", "."], 2, "folder"),
        (["issue", "new", "--days", "0"], 2, "got 0"),
        (["revoke", "new"], 2, "unknown device 'new'"),
        (["revoke", "old", "--keys", "none"], 2, "got none"),
        (["list", "--keys", "none"], 2, "got none"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_gets_one_line_and_changes_nothing(
    call: Call, empty: Path, words: list[str], code: int, named: str
) -> None:
    call(*INIT)
    call("keys", "issue", "old")
    before = {path: path.read_bytes() for path in empty.rglob("*") if path.is_file()}
    said = call("keys", *words)
    assert (said.code, said.out) == (code, "")
    assert said.err.startswith("fedpress: ")
    assert said.err.count("\n") == 1
    assert named in said.err
    assert {path: path.read_bytes() for path in empty.rglob("*") if path.is_file()} == before


def test_a_passphrase_is_asked_for_twice_and_not_echoed(
    call: Call, empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call(*INIT)
    asked: list[dict[str, object]] = []

    def prompt(text: str, **options: object) -> str:
        asked.append(options)
        return "correct horse"

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.prompt", prompt)
    assert call("keys", "issue", "pi-1", "--passphrase").code == 0
    assert asked == [{"hide_input": True, "confirmation_prompt": True, "err": True}]
    assert read_enrolment(empty / "pi-1.enrol", "correct horse").name == "pi-1"


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(secret=st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=8, max_size=40))
def test_neither_passphrase_nor_key_is_ever_said(
    call: Call, empty: Path, monkeypatch: pytest.MonkeyPatch, secret: str
) -> None:
    call(*INIT)
    call("keys", "revoke", "pi")  # which an earlier passphrase was for
    (empty / "pi.enrol").unlink(missing_ok=True)
    monkeypatch.setenv(VARIABLE, secret)
    said = [call("keys", "issue", "pi", "--passphrase")]
    assert VARIABLE not in os.environ
    sealed = json.loads((empty / "pi.enrol").read_text())["key"]
    with pytest.raises(PassphraseError):
        read_enrolment(empty / "pi.enrol", secret + "x")
    monkeypatch.setenv(VARIABLE, secret)
    said += [call("keys", *words) for words in (["issue", "pi", "--passphrase"], ["list"], ["list", "--json"])]
    text = "".join(one.out + one.err for one in said)
    kept = "".join(path.read_text() for path in (empty / "keys").rglob("*") if path.is_file())
    lines = [line for line in sealed.split("\n") if line and not line.startswith("---")]
    assert not any(line in text + kept for line in lines)
    plain = (empty / "pi.enrol").read_text()
    # A passphrase of common letters may be part of a word: what counts is that it is nowhere on its own.
    assert not re.search(rf"(?<!\w){re.escape(secret)}(?!\w)", text + kept + plain)


def test_a_passphrase_is_never_an_argument(empty: Path) -> None:
    process = start("keys", "issue", "pi", "--passphrase=correct-horse", folder=empty)
    said = finish(process)
    assert said.code == 2
    assert "correct-horse" not in said.out
