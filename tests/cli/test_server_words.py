"""What `fedpress server` does with its words."""

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fedpress.server.deploy import supervisor

from .conftest import Call
from .test_words import example


class Seen(Exception):
    """Raised where the work would begin."""


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, Any], supervisor.Place]]:
    """What would have been served, in place of a server."""
    seen: list[tuple[dict[str, Any], supervisor.Place]] = []

    def serve(config: dict[str, Any], place: supervisor.Place, _: Any) -> None:
        seen.append((config, place))
        raise Seen

    monkeypatch.setattr(supervisor, "serve", serve)
    return seen


WORDS = shlex.split("server --set task=a.b:c --set rounds=3")


def test_the_example_is_a_right_call(call: Call, empty: Path, begun: list[Any]) -> None:
    from fedpress.cli.server import server

    (empty / "keys").mkdir()
    (empty / "server.toml").write_text('task = "a.b:c"\nrounds = 2\n')
    call(*example(str(server.__doc__)))
    ((settings, place),) = begun
    assert (settings.run.out, settings.server.rounds) == ("runs/edge", 2)
    assert place == supervisor.Place("0.0.0.0", 9443, Path("keys"))


def test_its_help_has_an_example_and_needs_neither_torch_nor_flwr() -> None:
    code = """
import sys
from fedpress.cli import main
sys.argv = ["fedpress", "server", "--help"]
try:
    main()
except SystemExit:
    print("heavy:", sorted({"torch", "flwr", "uvicorn", "grpc"} & set(sys.modules)))
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Example: fedpress server" in said.stdout
    assert said.stdout.endswith("heavy: []\n")


def test_without_keys_it_says_so_and_stays_at_home(call: Call, begun: list[Any]) -> None:
    assert "INSECURE" in call(*WORDS, "--insecure").err
    assert "INSECURE" in call(*WORDS, "--insecure-anywhere", "--listen", "0.0.0.0:1234").err
    (_, home), (_, anywhere) = begun
    assert (home.host, home.keys, home.anywhere) == ("127.0.0.1", None, False)
    assert (anywhere.host, anywhere.port, anywhere.keys, anywhere.anywhere) == ("0.0.0.0", 1234, None, True)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["server"], "task must be given"),
        ([*WORDS, "--set", "lerning=1"], "unknown setting 'lerning'"),
        ([*WORDS, "--set", "alpha"], "--set must be KEY=VALUE, got 'alpha'"),
        ([*WORDS, "--listen", "here"], "HOST:PORT"),
        ([*WORDS, "--insecure", "--listen", "0.0.0.0:1234"], "loopback alone, got 0.0.0.0: --insecure-anywhere"),
        ([*WORDS, "--resume"], "out must be given"),
    ],
    ids=str,
)
def test_a_mistake_is_one_line_and_no_file(call: Call, empty: Path, words: list[str], line: str) -> None:
    said = call(*words)
    assert said.code == 2
    last = said.err.strip().splitlines()[-1]
    assert last.startswith("fedpress: ")
    assert line in last
    assert not list(empty.iterdir())


def test_keys_that_are_not_there_are_one_line(call: Call, empty: Path) -> None:
    said = call(*WORDS)
    assert said.code == 2
    assert "`fedpress keys init`" in said.err
    assert not list(empty.iterdir())
