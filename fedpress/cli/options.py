"""Command-line options for settings, with the types and help texts of their declarations."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING
from types import UnionType
from typing import Annotated, Any, get_args

import typer

from fedpress.common.settings import Declared, Schema, read_pair

Command = Callable[..., None]

Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]  # an option of every command, read by `main`

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
    """Return the values given to `--set`, by key."""
    return dict(read_pair(text, "--set") for text in pairs or [])


def _type_of(kind: Any) -> Any:
    return get_args(kind)[0] if isinstance(kind, UnionType) else kind


def _help(setting: Declared, defaults: bool) -> str:
    text, default = setting.option.help, setting.default
    shown = f" (default {default})" if defaults and default and default is not MISSING else ""
    return f"{text[0].upper()}{text[1:]}{shown}."
