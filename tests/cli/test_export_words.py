"""`fedpress export` and `distil` say what they are for."""

import pytest

from .conftest import Call


@pytest.mark.parametrize("command", ["export", "distil"])
def test_there_is_help_with_an_example(call: Call, command: str) -> None:
    said = call(command, "--help")
    assert said.code == 0
    assert f"Example: fedpress {command} runs/first" in said.out
