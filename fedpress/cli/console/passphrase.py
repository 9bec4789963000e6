"""The passphrase of an enrolment: from the environment, else asked for; never an argument, which `ps` would show."""

import os
import sys

import typer

from fedpress.common.errors import SettingError

VARIABLE = "FEDPRESS_PASSPHRASE"


def take_passphrase(*, asked: bool) -> str | None:
    """Return the passphrase of an enrolment: FEDPRESS_PASSPHRASE, else what is typed if `asked`, else None."""
    return ask_passphrase() if asked else os.environ.pop(VARIABLE, None)


def ask_passphrase(*, twice: bool = False) -> str:
    """Return what FEDPRESS_PASSPHRASE holds, else what is typed on the terminal, `twice` if it is a new one.

    It is taken out of the environment: nothing that is started here has to see it.
    """
    if given := os.environ.pop(VARIABLE, None):
        return given
    if not sys.stdin.isatty():
        raise SettingError(f"there is no terminal to ask for a passphrase on: {VARIABLE} may hold it")
    return str(typer.prompt("Passphrase", hide_input=True, confirmation_prompt=twice, err=True))
