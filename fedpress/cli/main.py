"""The `fedpress` command and its exit codes: 2 for a usage error, 1 for a failure, 130 at Ctrl-C."""

import io
import os
import re
import signal
import sys
import traceback
from importlib.metadata import requires
from pathlib import Path
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
from fedpress.cli.options import unknown_option
from fedpress.cli.runs import runs
from fedpress.cli.server import server
from fedpress.cli.settings import init, settings
from fedpress.cli.shrink import shrink
from fedpress.cli.simulate import simulate
from fedpress.common.errors import FedpressError, SettingError

STOPPED = 130  # click's exit code at Ctrl-C

app = typer.Typer(
    name="fedpress",
    help="Federated learning on Flower that sends as few bytes as possible, both ways.\n\n"
    "Example: `fedpress simulate --rounds 5`",
    no_args_is_help=True,
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
    _open_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may not have a character, of a path for example
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app(standalone_mode=False, prog_name="fedpress")
        sys.stdout.flush()
        if code == STOPPED:
            _stop()
        sys.exit(code)
    except (click.Abort, KeyboardInterrupt):  # Ctrl-C, at a prompt too
        _stop()
    except BrokenPipeError:  # the reader of the output has ended, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:  # noqa: BLE001  any failure is one line
        if "--debug" in sys.argv:
            traceback.print_exc()
        if line := _line(error):
            typer.echo("fedpress: " + " ".join(line.splitlines()), err=True)  # whatever a path or a message holds
        sys.exit(2 if isinstance(error, click.UsageError | SettingError | ModuleNotFoundError) else 1)


def _open_streams() -> None:
    """Open the null device for each standard stream that is closed: another file would get its descriptor."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115  open until the end


def _stop() -> NoReturn:
    typer.echo("fedpress: stopped", err=True)
    os._exit(STOPPED)  # everything is closed and written by now; a regular exit would take seconds to unload torch


def _line(error: Exception) -> str:
    """Return the line that an error is reported with; empty if the help was printed instead."""
    match error:
        case click.NoSuchOption():
            return unknown_option(error)
        case click.ClickException():
            return error.format_message()
        case FedpressError():
            return str(error)
        case ModuleNotFoundError():
            extra = _extra_of(error.name or "")
            advice = f'pip install "fedpress[{extra}]"' if extra else "it is not installed"
            return f"this needs the package {error.name}: {advice}"
        case OSError(filename=str(name), strerror=str(reason)):
            return f"{name}: {reason}"
    return f"{type(error).__name__}: {error} (--debug shows where)"


def _extra_of(module: str) -> str:
    """Return the extra of fedpress that installs `module`; empty if none does."""
    for requirement in requires("fedpress") or []:
        package, extra = re.match(r"[\w.-]+", requirement), re.search(r"extra == ['\"](\w+)", requirement)
        if package and extra and package[0].lower() == module.partition(".")[0].lower():
            return extra[1]
    return ""
