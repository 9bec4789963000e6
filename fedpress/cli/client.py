"""`fedpress client`."""

import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click
import typer

from fedpress.cli.options import Config, SetOption, read_pairs, settings_options
from fedpress.settings.device import client_schema

if TYPE_CHECKING:
    from fedpress.client.edge.status import Status
    from fedpress.common.settings import Value
    from fedpress.flower.byte_counter import ByteCounter


@settings_options(client_schema(), "state", "app")
def client(
    given: Mapping[str, Any],
    enrolment: Annotated[
        Path | None,
        typer.Argument(exists=True, dir_okay=False, help="The file that `fedpress keys issue` made for this device."),
    ] = None,
    config: Config = None,
    server: Annotated[str | None, typer.Option(help="HOST:PORT of the server; the enrolment's if not given.")] = None,
    passphrase: Annotated[bool, typer.Option("--passphrase", help="Ask for the enrolment's passphrase.")] = False,
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="Use no enrolment and no TLS; takes --server and --name, on loopback only."),
    ] = False,
    name: Annotated[str | None, typer.Option(help="This node's name, with --insecure.")] = None,
    health: Annotated[str | None, typer.Option(help="HOST:PORT of a gRPC health service.")] = None,
    metrics: Annotated[str | None, typer.Option(help="HOST:PORT of Prometheus metrics.")] = None,
    setting: SetOption = None,
    debug: Annotated[bool, typer.Option("--debug", help="Log more, with tracebacks.")] = False,
) -> None:
    """Take part in a federation from this device until it is stopped.

    Example: `fedpress client kitchen.enrol --config client.toml`
    """
    from fedpress.client.edge.settings import resolve

    settings = resolve({**read_pairs(setting), **given}, config)
    key = ca = None
    node: dict[str, Value] = {}
    if insecure:
        if enrolment or not (server and name):
            raise click.UsageError("--insecure takes --server and --name, and no enrolment.")
        _require_loopback(server)
    else:
        if enrolment is None or name:
            raise click.UsageError("an enrolment file is missing: `fedpress keys issue` makes it, at the server.")
        from fedpress.cli.console.passphrase import take_passphrase
        from fedpress.client.edge.enrolment import read_enrolment

        identity = read_enrolment(enrolment, take_passphrase(prompt=passphrase))
        name, key, ca, node = identity.name, identity.key, identity.ca, dict(identity.node)
        server = server or identity.server
    from fedpress.common.logs import FLOWER, LOGGER, send_logs

    levels = {LOGGER: logging.DEBUG if debug else logging.INFO, FLOWER: logging.INFO if debug else logging.ERROR}
    send_logs(logging.StreamHandler(sys.stderr), levels, times="%Y-%m-%dT%H:%M:%S%z")
    if insecure:
        logging.getLogger(LOGGER).warning("INSECURE: anybody on this machine can read and change what is sent")

    from fedpress.client.edge.service import serve

    started: list[object] = []  # keeps references: a server without one is stopped

    def watch(status: "Status", traffic: "ByteCounter") -> None:
        if health:
            from fedpress.client.edge.health import serve_health

            started.append(serve_health(health, status))
        if metrics:
            from fedpress.client.edge.metrics import serve_metrics

            started.append(serve_metrics(metrics, status, traffic))

    serve(settings, name=name, server=server, key=key, ca=ca, node=node, watch=watch)


def _require_loopback(server: str) -> None:
    from fedpress.common.address import is_loopback, parse_address
    from fedpress.common.errors import SettingError

    if not is_loopback(parse_address(server)[0]):
        raise SettingError(f"--insecure is for loopback alone, got {server!r}: elsewhere a device needs an enrolment")
