"""A shell completes the names of commands and of their options."""

import os
import subprocess
import sys

import pytest

TYPED = {"fedpress sim": "simulate", "fedpress simulate --work": "--workload", "fedpress keys rev": "revoke"}


@pytest.mark.parametrize("typed", TYPED)
def test_a_word_is_completed(typed: str) -> None:
    environment = {"COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" ")), "_FEDPRESS_COMPLETE": "complete_bash"}
    done = subprocess.run(
        [sys.executable, "-m", "fedpress"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert TYPED[typed] in done.stdout.split()
