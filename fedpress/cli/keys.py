"""`fedpress keys`: the keys of the server and its devices."""

import json as json_module
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedpress.cli.options import Debug
from fedpress.common.errors import SettingError

if TYPE_CHECKING:
    from fedpress.server.keys import Device

keys = typer.Typer(
    help="Make the keys of a server and its devices.\n\nExample: `fedpress keys init --host fed.example.org`",
    no_args_is_help=True,
)


def check_keys(folder: Path) -> Path:
    """Return `folder`; raise SettingError if it is no folder of keys."""
    if not folder.is_dir():
        raise SettingError(f"keys must be the folder that `fedpress keys init` made, got {folder}")
    return folder


_Keys = Annotated[Path, typer.Option("--keys", help="The folder of keys.")]
_ExistingKeys = Annotated[Path, typer.Option("--keys", callback=check_keys, help="The folder of keys.")]


@keys.callback()
def _group() -> None:
    """Make the keys of a server and its devices: a private certificate authority, and one key for each device."""


@keys.command()
def init(
    host: Annotated[
        list[str] | None,
        typer.Option(help="A name or address under which devices reach the server; may be given several times."),
    ] = None,
    folder: _Keys = Path("keys"),
    days: Annotated[int, typer.Option(help="Days for which the server's certificate is valid.")] = 730,
    renew: Annotated[
        bool, typer.Option("--renew", help="Make only a new certificate, for the same hosts unless others are given.")
    ] = False,
    _debug: Debug = False,
) -> None:
    """Make a certificate authority and the server's certificate. Existing files are never overwritten.

    Example: `fedpress keys init --host fed.example.org --host 192.0.2.7`
    """
    from fedpress.server.keys import authority

    if renew:
        check_keys(folder)
    make = authority.renew if renew else authority.init
    certificate = make(folder, host or [], days=days)
    hosts = ", ".join(authority.hosts_of(certificate))
    typer.echo(f"{folder / authority.CERTIFICATE}: for {hosts}, until {certificate.not_valid_after_utc:%Y-%m-%d}")
    if renew:
        typer.echo("a running server takes it up when it is started again")
    else:
        typer.echo(f"{folder / authority.CA_KEY} never leaves this machine, but for a backup: who has it is the server")


@keys.command()
def issue(
    name: Annotated[str, typer.Argument(help="The device's name.")],
    server: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Address of the server; the certificate's first host if empty.")
    ] = "",
    out: Annotated[Path | None, typer.Option(help="The enrolment file; NAME.enrol if not given.")] = None,
    node: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Configuration of the node, such as partition-id=3.")
    ] = None,
    passphrase: Annotated[
        bool,
        typer.Option(
            "--passphrase", help="Encrypt the key with FEDPRESS_PASSPHRASE, or with a passphrase that is prompted for."
        ),
    ] = False,
    days: Annotated[int, typer.Option(help="Days for which the device is admitted.")] = 365,
    folder: _ExistingKeys = Path("keys"),
    _debug: Debug = False,
) -> None:
    """Make a device's key, and the one file that the device needs.

    Example: `fedpress keys issue pi-1 --server fed.example.org:9443 --node partition-id=0`
    """
    from fedpress.cli.console.passphrase import ask_passphrase
    from fedpress.common.settings import read_pair
    from fedpress.server.keys import devices

    devices.require_name(name)
    pairs = dict(read_pair(text, "--node") for text in node or [])
    secret = ask_passphrase(twice=True) if passphrase else None
    file = out or Path(f"{name}.enrol")
    device = devices.issue(folder, name, file, server=server, node=pairs, passphrase=secret, days=days)
    encrypted = "encrypted with the passphrase" if secret else "not encrypted"
    typer.echo(f"{file}: {name}'s enrolment until {device.expires:%Y-%m-%d}, its key {encrypted}")
    typer.echo("move it to the device, and keep no copy: its key is nowhere else")


@keys.command()
def revoke(
    name: Annotated[str, typer.Argument(help="The device's name.")],
    folder: _ExistingKeys = Path("keys"),
    _debug: Debug = False,
) -> None:
    """Revoke a device's key, with effect on a running server too. Its name may then be issued again.

    Example: `fedpress keys revoke pi-1`
    """
    from fedpress.server.keys import revoke as revoke_device

    device = revoke_device(folder, name)
    typer.echo(f"{name} is revoked since {device.revoked:%Y-%m-%d %H:%M %Z}")


@keys.command("list")
def list_(
    folder: _ExistingKeys = Path("keys"),
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    _debug: Debug = False,
) -> None:
    """List the devices, the state of their keys and when they expire.

    Example: `fedpress keys list --json`
    """
    from fedpress.server.keys import load_devices

    now = datetime.now(UTC)
    rows = [_row(device, now) for device in load_devices(folder).values()]
    if json:
        typer.echo(json_module.dumps(rows))
    else:
        _print(rows, folder)


def _row(device: "Device", now: datetime) -> dict[str, Any]:
    return {
        "name": device.name,
        "state": device.state(now),
        "issued": device.issued.isoformat(),
        "expires": device.expires.isoformat(),
        "revoked": device.revoked and device.revoked.isoformat(),
        "days": max(0, (device.expires - now).days),
        "public_key": device.public_key,
    }


def _print(rows: list[dict[str, Any]], folder: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    colours = {"valid": "green", "expired": "yellow", "revoked": "red"}
    table = Table("device", "state", "issued", "expires", title=f"devices in {folder}", title_justify="left")
    table.add_column("days left", justify="right")
    for row in rows:
        state, days = row["state"], str(row["days"]) if row["state"] == "valid" else ""
        table.add_row(row["name"], f"[{colours[state]}]{state}", row["issued"][:10], row["expires"][:10], days)
    Console().print(table)
