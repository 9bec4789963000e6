"""A Flower bundle that hosts any two apps, and how its ServerApp fared.

Flower's runtimes run bundles: a folder with a `pyproject.toml` and modules that hold the apps. Ours holds two modules
of a few lines that name the apps, which are imported from where they are installed.
"""

import json
import pkgutil
import time
import traceback
from collections.abc import Mapping
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedpress.compression import errors
from fedpress.compression.errors import FedpressError, SettingError

HELLO = b"\n"  # the first that a hosted ServerApp writes: what follows tells how it ended

_PROJECT = """\
[project]
name = "fedpress-run"
version = "1"
description = "Hosts the apps of one run."
license = "Apache-2.0"

[tool.flwr.app]
publisher = "fedpress"

[tool.flwr.app.components]
serverapp = "fedpress_hosted_server:app"
clientapp = "fedpress_hosted_client:app"

[tool.flwr.app.config]
"""
# Flower looks for the assignment of `app` in the text of these modules before it imports them.
_SERVER = """\
from fedpress.simulations.engine.bundle import host

app = host({server_app!r}, {client_app!r}, {num_clients!r}, {report!r})
"""
_CLIENT = """\
import pkgutil

app = pkgutil.resolve_name({client_app!r})
"""


def write_bundle(
    folder: Path,
    server_app: str,
    client_app: str,
    *,
    num_clients: int,
    run_config: Mapping[str, str | int | float | bool],
    report: Path,
) -> None:
    """Write a bundle of the two apps, each named "module:object", whose ServerApp reports to the named pipe `report`.

    Raises
    ------
    SettingError
        If the run's configuration holds anything but strings, integers, floats and booleans.
    """
    config = "".join(f"{_text(key)} = {_value(key, value)}\n" for key, value in run_config.items())
    names = {"server_app": server_app, "client_app": client_app}
    folder.mkdir()
    (folder / "pyproject.toml").write_text(_PROJECT + config, encoding="utf-8")
    server = _SERVER.format(**names, num_clients=num_clients, report=str(report))
    (folder / "fedpress_hosted_server.py").write_text(server, encoding="utf-8")
    (folder / "fedpress_hosted_client.py").write_text(_CLIENT.format(**names), encoding="utf-8")


def host(server_app: str, client_app: str, num_clients: int, report: str) -> ServerApp:
    """Return a ServerApp that runs another one, and tells the reader of the pipe `report` how that went."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        failure: dict[str, str] = {}
        with Path(report).open("wb", buffering=0) as pipe:
            pipe.write(HELLO)
            try:
                pkgutil.resolve_name(client_app)  # Flower takes ten seconds to say that it cannot be loaded
                # Flower calls the ServerApp while it still registers nodes: strategies would sample from the first few.
                while len(list(grid.get_node_ids())) < num_clients:
                    time.sleep(0.02)
                pkgutil.resolve_name(server_app)(grid=grid, context=context)
            except BaseException as error:  # noqa: BLE001  it is raised again where `check` is called
                failure = {"kind": type(error).__name__, "text": str(error), "traceback": traceback.format_exc()}
            pipe.write(json.dumps(failure).encode())

    return app


def check(report: bytes) -> None:
    """Raise what the hosted ServerApp raised, if it raised anything; `report` is all that it wrote to the pipe.

    One of our own errors is raised as itself, any other as a FedpressError that names it. A note has the traceback.
    """
    failure = json.loads(report)
    if not failure:
        return
    kind = vars(errors).get(failure["kind"])
    if isinstance(kind, type) and issubclass(kind, FedpressError):
        error = kind(failure["text"])
    else:
        error = FedpressError(f"the ServerApp raised {failure['kind']}: {failure['text']}")
    error.add_note(failure["traceback"])
    raise error


def _value(key: str, value: object) -> str:
    """Return a value of the run's configuration as TOML."""
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return repr(value)
        case str():
            return _text(value)
    raise SettingError(f"the run's configuration holds strings, numbers and booleans, got {key} = {value!r}")


def _text(text: str) -> str:
    # A JSON string is a TOML string, but for the one control character that JSON leaves as it is.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
