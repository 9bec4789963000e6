"""The `fedpress` command and its exit codes: 2 for a usage error, 1 for a failure, 130 at Ctrl-C."""

import io
import os
import re
import signal
import sys
from importlib.metadata import requires
from typing import Annotated, NoReturn

import click
import typer

import fedpress
from fedpress.cli.bench import bench
from fedpress.cli.client import client
from fedpress.cli.compare import compare
from fedpress.cli.distil import distil
from fedpress.cli.doctor import doctor
from fedpress.cli.export import export
from fedpress.cli.inspect import inspect
from fedpress.cli.keys import keys
from fedpress.cli.runs import runs
from fedpress.cli.server import server
from fedpress.cli.settings import init, settings
from fedpress.cli.shrink import shrink
from fedpress.cli.simulate import simulate
from fedpress.common.errors import FedpressError, SettingError

STOPPED = 130  # click's exit code at Ctrl-C

app = typer.Typer(
    name="fedpress",
    help="Federated learning on Flower that sends as few bytes as possible, both ways.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command()(simulate)
app.command()(compare)
app.command()(shrink)
app.command()(distil)
app.command()(export)
app.command()(inspect)
app.command()(server)
app.command()(doctor)
app.command()(client)
app.command()(settings)
app.command()(init)
app.command()(runs)
app.add_typer(bench, name="bench")
app.add_typer(keys, name="keys")


@app.callback(invoke_without_command=True)
def _options(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(fedpress.__version__)
        raise typer.Exit


def main() -> NoReturn:
    """Run the command in the process's arguments."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may not have a character, of a path for example
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app(standalone_mode=False, prog_name="fedpress")
        if code == STOPPED:
            typer.echo("fedpress: stopped", err=True)
            sys.stdout.flush()
            os._exit(code)  # everything is closed and written by now; a regular exit would take seconds to unload torch
        sys.exit(code)
    except click.UsageError as error:
        if line := error.format_message():  # empty if the help was printed
            _fail(line)
        sys.exit(2)
    except FedpressError as error:
        if "--debug" in sys.argv:
            raise
        _fail(str(error))
        sys.exit(2 if isinstance(error, SettingError) else 1)
    except ModuleNotFoundError as error:
        if "--debug" in sys.argv:
            raise
        extra = _extra_of(error.name or "")
        advice = f'pip install "fedpress[{extra}]"' if extra else "it is not installed"
        _fail(f"this needs the package {error.name}: {advice}")
        sys.exit(2)
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        _fail(f"{type(error).__name__}: {error} (--debug shows where)")
        sys.exit(1)


def _fail(text: str) -> None:
    """Write an error as one line, whatever a path or a message in it holds."""
    typer.echo("fedpress: " + " ".join(text.splitlines()), err=True)


def _extra_of(module: str) -> str:
    """Return the extra of fedpress that installs `module`; empty if none does."""
    for requirement in requires("fedpress") or []:
        package, extra = re.match(r"[\w.-]+", requirement), re.search(r"extra == ['\"](\w+)", requirement)
        if package and extra and package[0].lower() == module.partition(".")[0].lower():
            return extra[1]
    return ""
