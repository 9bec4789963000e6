"""Command-line options for settings, with the types and help texts of their declarations."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, get_args

import click
import typer

from fedpress.common.errors import SettingError
from fedpress.common.settings import Declared, Schema, read_pair
from fedpress.settings import RunSettings
from fedpress.settings.device import client_schema

Command = Callable[..., None]

Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]  # an option of every command, read by `main`

Config = Annotated[
    Path | None,
    typer.Option("--config", exists=True, dir_okay=False, help="A TOML file of settings; options take precedence."),
]
RunFolder = Annotated[
    Path,
    typer.Argument(exists=True, file_okay=False, help="A run's folder, or the output folder of shrink or distil."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Another setting, KEY=VALUE; `fedpress settings` lists them all.", metavar="KEY=VALUE"),
]


def settings_options(
    schema: Schema, *keys: str, panel: str | None = None, defaults: bool = False, flags: Mapping[str, str] | None = None
) -> Callable[[Command], Command]:
    """Return a decorator that gives a command an option for each of some settings.

    The command is called with `given`, a mapping from full keys to the values that were given.

    Parameters
    ----------
    schema : Schema
        Declares the settings.
    *keys : str
        Settings whose options have the same names.
    panel : str, optional
        Heading of these options in the help.
    defaults : bool, default False
        Whether the help shows the declared defaults; not for settings whose defaults a workload may change.
    flags : mapping, optional
        Settings whose options have another name, keyed by that name.
    """
    named = {key: key for key in keys} | dict(flags or {})
    declared = {flag.replace("-", "_"): schema.declared[schema.find(key)] for flag, key in named.items()}

    def decorate(command: Command) -> Command:
        def call(**values: Any) -> None:
            settings = {
                declared[name].key: value for name, value in values.items() if name in declared and value is not None
            }
            rest = {name: value for name, value in values.items() if name not in declared}
            command(given={**settings, **rest.pop("given", {})}, **rest)

        others = {name: p for name, p in inspect.signature(command).parameters.items() if name != "given"}
        options = {
            name: inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[
                    _type_of(setting.kind) | None,
                    typer.Option(f"--{name.replace('_', '-')}", help=_help(setting, defaults), rich_help_panel=panel),
                ],
            )
            for name, setting in declared.items()
        }
        parameters = {**options, **{name: p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for name, p in others.items()}}
        call.__name__, call.__doc__ = command.__name__, command.__doc__
        call.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]
        call.__annotations__ = {name: parameter.annotation for name, parameter in parameters.items()}
        return call

    return decorate


def read_pairs(pairs: list[str] | None) -> dict[str, Any]:
    """Return the values given to `--set`, by key; raise SettingError if a key has two values."""
    values: dict[str, Any] = {}
    for key, value in (read_pair(text, "--set") for text in pairs or []):
        if key in values and values[key] != value:
            raise SettingError(f"{key} must be given once, got {values[key]!r} and {value!r}")
        values[key] = value
    return values


def unknown_option(error: click.NoSuchOption) -> str:
    """Return the line for an unknown option: options of the command with similar names, or settings for `--set`."""
    command = error.ctx.command if error.ctx else None
    options = [name for option in command.params for name in option.opts] if command else []
    if "--set" in options and command:
        schema = client_schema() if command.name == "client" else RunSettings.schema()
        names = {key: f"--{key.rpartition('.')[2]}" for key in schema.similar(error.option_name.lstrip("-"))}
        ways = [name if name in options else f"--set {key}=VALUE" for key, name in names.items()]
        if ways:
            return f"no such option {error.option_name}: did you mean {' or '.join(dict.fromkeys(ways))}?"
    return error.format_message()


def _type_of(kind: Any) -> Any:
    return get_args(kind)[0] if isinstance(kind, UnionType) else kind


def _help(setting: Declared, defaults: bool) -> str:
    text, default = setting.option.help, setting.default
    shown = f" (default {default})" if defaults and default and default is not MISSING else ""
    return f"{text[0].upper()}{text[1:]}{shown}."
