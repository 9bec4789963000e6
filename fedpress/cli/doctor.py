"""`fedpress doctor`: checks of a device or a server."""

import json as json_module
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
import typer

from fedpress.cli.options import Debug
from fedpress.common.errors import FedpressError

if TYPE_CHECKING:
    from fedpress.common.diagnostics import Finding

_MARKS = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "failure": "[red]failure[/]"}


def doctor(
    enrolment: Annotated[
        Path | None, typer.Argument(exists=True, dir_okay=False, help="On a device: its enrolment file.")
    ] = None,
    keys: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="At the server: its folder of keys.")
    ] = None,
    server: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="On a device: address of the server; the enrolment's if not given.")
    ] = "",
    state: Annotated[Path | None, typer.Option(help="On a device: the folder of its state.")] = None,
    passphrase: Annotated[
        bool,
        typer.Option("--passphrase", help="Ask for the enrolment's passphrase, if FEDPRESS_PASSPHRASE is not set."),
    ] = False,
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="At the server: the address to listen on.")] = "",
    out: Annotated[Path, typer.Option(help="At the server: the run's folder.")] = Path(),
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    _debug: Debug = False,
) -> None:
    """Check what a device or a server needs, and print how to correct failures. Exits with 1 if a check fails.

    Example: `fedpress doctor pi-1.enrol`
    """
    if (enrolment is None) == (keys is None):
        raise click.UsageError("either an enrolment file must be given, on a device, or --keys, at the server")
    if enrolment is not None:
        findings = _device(enrolment, server, state, passphrase)
    else:
        findings = _server(keys or Path(), listen, out)
    found = _print(findings, as_json=json)
    failed = [finding.check for finding in found if finding.status == "failure"]
    if failed:
        raise FedpressError(f"{len(failed)} of {len(found)} checks failed: {', '.join(dict.fromkeys(failed))}")


def _device(enrolment: Path, server: str, state: Path | None, passphrase: bool) -> Iterator["Finding"]:
    from fedpress.cli.console.passphrase import take_passphrase
    from fedpress.client.edge.doctor import inspect_device
    from fedpress.common.address import parse_address

    if server:
        parse_address(server)
    secret = take_passphrase(prompt=passphrase)
    return inspect_device(enrolment, state=state, passphrase=secret, server=server)


def _server(keys: Path, listen: str, out: Path) -> Iterator["Finding"]:
    from fedpress.common.address import parse_address
    from fedpress.server.deploy.doctor import inspect_server
    from fedpress.server.keys import PORT

    host, port = parse_address(listen) if listen else ("0.0.0.0", PORT)  # noqa: S104  as `fedpress server` does
    return inspect_server(keys, host=host, port=port, out=out)


def _print(findings: Iterator["Finding"], *, as_json: bool) -> list["Finding"]:
    """Print and return findings, each as soon as it is there unless `as_json`."""
    if as_json:
        found = list(findings)
        typer.echo(json_module.dumps([asdict(finding) for finding in found]))
        return found
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)
    found = []
    for finding in findings:
        found.append(finding)
        console.print(f"{_MARKS[finding.status]} {finding.check}: {escape(finding.seen)}", soft_wrap=True)
        if finding.advice:
            console.print(f"    {escape(finding.advice)}", soft_wrap=True)
    return found
