"""`fedpress doctor`: what it prints, and how it ends."""

import json
import socket
from pathlib import Path

import pytest

from fedpress.server.keys import init, issue

from .conftest import Call


@pytest.fixture
def closed() -> int:
    """A port that nobody listens at."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture
def files(empty: Path, closed: int) -> Path:
    init(empty / "keys", ["127.0.0.1", "fed.example.org"])
    issue(empty / "keys", "pi-1", empty / "pi-1.enrol", server=f"127.0.0.1:{closed}")
    return empty


def test_a_device_that_cannot_reach_its_server(call: Call, files: Path) -> None:
    said = call("doctor", "pi-1.enrol")
    assert said.code == 1
    assert "failure reachable: nothing listens at 127.0.0.1" in said.out
    assert "start `fedpress server`" in said.out
    assert said.err == "fedpress: 1 of 10 checks failed: reachable\n"
    said = call("doctor", "pi-1.enrol", "--json")
    assert said.code == 1
    found = json.loads(said.out)
    assert [(row["check"], row["status"]) for row in found][-2:] == [("address", "ok"), ("reachable", "failure")]
    assert set(found[0]) == {"check", "status", "seen", "advice"}


def test_a_server_that_is_well(call: Call, files: Path, closed: int) -> None:
    for words in ([], ["--json"]):
        said = call("doctor", "--keys", "keys", "--listen", f"127.0.0.1:{closed}", *words)
        assert (said.code, said.err) == (0, "")
    assert {row["status"] for row in json.loads(said.out)} == {"ok"}


@pytest.mark.parametrize(
    "words",
    [[], ["pi-1.enrol", "--keys", "keys"], ["--keys", "keys", "--listen", "here"], ["pi-1.enrol", "--server", "x:"]],
    ids=" ".join,
)
def test_a_wrong_call_gets_one_line(call: Call, files: Path, words: list[str]) -> None:
    said = call("doctor", *words)
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)


def test_it_has_an_example(call: Call) -> None:
    assert "Example: fedpress doctor pi-1.enrol" in call("doctor", "--help").out
