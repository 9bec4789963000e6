"""The passphrase of an enrolment: from the environment or a prompt; never an argument, which `ps` would show."""

import os
import sys

import typer

from fedpress.common.errors import SettingError

VARIABLE = "FEDPRESS_PASSPHRASE"


def take_passphrase(*, prompt: bool) -> str | None:
    """Return an enrolment's passphrase: FEDPRESS_PASSPHRASE, or else a prompt's if `prompt`; None without either."""
    return ask_passphrase() if prompt else os.environ.pop(VARIABLE, None)


def ask_passphrase(*, twice: bool = False) -> str:
    """Return FEDPRESS_PASSPHRASE, or else that of a prompt, which asks `twice` for a new one.

    The variable is removed from the environment, so that child processes do not inherit it.
    """
    if given := os.environ.pop(VARIABLE, None):
        return given
    if not sys.stdin.isatty():
        raise SettingError(f"there is no terminal to ask for a passphrase on: {VARIABLE} may hold it")
    return str(typer.prompt("Passphrase", hide_input=True, confirmation_prompt=twice, err=True))
