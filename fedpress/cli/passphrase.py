"""The passphrase of an enrolment: from the environment, else asked for; never an argument, which `ps` would show."""

import os
import sys

import typer

from fedpress.compression.errors import SettingError

VARIABLE = "FEDPRESS_PASSPHRASE"


def ask_passphrase(*, twice: bool = False) -> str:
    """Return the passphrase in FEDPRESS_PASSPHRASE, else what is typed on the terminal; `twice` if it is a new one."""
    if given := os.environ.get(VARIABLE):
        return given
    if not sys.stdin.isatty():
        raise SettingError(f"there is no terminal to ask for a passphrase on: {VARIABLE} may hold it")
    return str(typer.prompt("Passphrase", hide_input=True, confirmation_prompt=twice, err=True))
