"""`fedpress server`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from fedpress.cli.keys import check_keys
from fedpress.cli.options import Config, Debug, SetOption, read_pairs, settings_options
from fedpress.settings import RunSettings


@settings_options(RunSettings.schema(), "out", "resume")
def server(
    given: Mapping[str, Any],
    keys: Annotated[Path, typer.Option(help="The folder of keys from `fedpress keys init`.")] = Path("keys"),
    config: Config = None,
    listen: Annotated[str, typer.Option(help="HOST:PORT to listen on.")] = "",
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Use no TLS and no keys, on loopback only: for trials.")
    ] = False,
    insecure_anywhere: Annotated[
        bool, typer.Option("--insecure-anywhere", help="As --insecure, on any address: anybody may take part.")
    ] = False,
    health: Annotated[str, typer.Option(help="HOST:PORT of a gRPC health service.")] = "",
    metrics: Annotated[str, typer.Option(help="HOST:PORT of Prometheus metrics.")] = "",
    setting: SetOption = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print events, then the result, as one JSON object per line.")
    ] = False,
    _debug: Debug = False,
) -> None:
    """Serve a federation of real devices: a SuperLink behind a proxy with TLS and enrolled keys, and one run.

    Example: `fedpress server --keys keys --config server.toml --out runs/edge`
    """
    # Imported here because flwr is slow to import, and --help does not need it.
    from fedpress.cli.console.progress import close
    from fedpress.cli.console.server_table import Fleet
    from fedpress.common.address import parse_address
    from fedpress.server.deploy.settings import resolve
    from fedpress.server.deploy.supervisor import Place, serve
    from fedpress.server.keys import PORT

    open_to_all = insecure or insecure_anywhere
    host, port = parse_address(listen) if listen else ("127.0.0.1" if open_to_all else "0.0.0.0", PORT)  # noqa: S104
    place = Place(host, port, None if open_to_all else keys, insecure_anywhere, health, metrics)
    chosen = resolve({**read_pairs(setting), **given}, config)
    if not open_to_all:
        check_keys(keys)
    if open_to_all:
        typer.echo(
            "fedpress: INSECURE: no TLS and no keys: anybody who reaches this server can take part, "
            "and read and change what is sent",
            err=True,
        )
    with Fleet(as_json=json) as fleet:
        result = serve(chosen, place, fleet.show)
    close(result, as_json=json)
