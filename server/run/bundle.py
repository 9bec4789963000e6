"""A Flower bundle that hosts any two apps, and the report of its ServerApp.

Flower's runtimes run bundles: a folder with a `pyproject.toml` and modules that hold the apps. Ours holds two modules
of a few lines that name the apps, which are imported from where they are installed.
"""

import json
import logging
import os
import pkgutil
import time
import traceback
from collections.abc import Mapping
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedpress.common import errors
from fedpress.common.errors import FedpressError, SettingError
from fedpress.common.forks import forks_end_here
from fedpress.common.logs import LOGGER, LogFile, send_logs
from fedpress.common.settings import Value, toml
from fedpress.compression.third_party import own_codecs

HELLO = b"\n"  # the first byte that a hosted ServerApp writes; its failure as JSON follows when it ends
_log = logging.getLogger(LOGGER)
_LOG_INTERVAL = 10.0  # seconds between two log lines about missing nodes

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
from fedpress.compression.third_party import import_codecs
from fedpress.server.run.bundle import host

import_codecs({codecs!r})
app = host({server_app!r}, {client_app!r}, {num_clients!r}, {report!r}, log={log!r})
"""
_CLIENT = """\
import pkgutil

from fedpress.compression.third_party import import_codecs

import_codecs({codecs!r})
app = pkgutil.resolve_name({client_app!r})
"""


def write_bundle(
    folder: Path,
    server_app: str,
    client_app: str,
    *,
    num_clients: int,
    run_config: Mapping[str, Value],
    report: Path,
    log: Path | None = None,
) -> None:
    """Write a bundle of the two apps, each named "module:object", whose ServerApp reports to the named pipe `report`.

    It starts when `num_clients` nodes are connected. The logs of Flower and fedpress go to the file `log`, if given.

    Raises
    ------
    SettingError
        If a value of the run's configuration is not a string, integer, float or boolean.
    """
    for key, value in run_config.items():
        if not isinstance(value, str | int | float):
            raise SettingError(
                f"{key} must be a string, a number or a boolean in the run's configuration, got {value!r}"
            )
    config = "".join(f"{toml(key)} = {toml(value)}\n" for key, value in run_config.items())
    names = {"server_app": server_app, "client_app": client_app, "codecs": _importable_codecs()}
    folder.mkdir()
    (folder / "pyproject.toml").write_text(_PROJECT + config, encoding="utf-8")
    server = _SERVER.format(**names, num_clients=num_clients, report=str(report), log=str(log or ""))
    (folder / "fedpress_hosted_server.py").write_text(server, encoding="utf-8")
    (folder / "fedpress_hosted_client.py").write_text(_CLIENT.format(**names), encoding="utf-8")


def _importable_codecs() -> dict[str, str]:
    """Return the codecs of other packages that the hosted apps import, as this process has."""
    codecs = own_codecs()
    for name, reference in codecs.items():
        if not reference:
            raise SettingError(f"codec {name!r} must be defined in a module that other processes can import")
    return codecs


def host(server_app: str, client_app: str, num_clients: int, report: str, *, log: str = "") -> ServerApp:
    """Return a ServerApp that runs another one, and writes how that ended to the pipe `report`."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        failure: dict[str, str] = {}
        if log:
            send_logs(LogFile(Path(log)))
        with Path(report).open("wb", buffering=0) as pipe:
            pipe.write(HELLO)
            try:
                pkgutil.resolve_name(client_app)  # Flower reports only after ten seconds that it cannot be loaded
                wait_for(grid, num_clients)
                with forks_end_here():
                    pkgutil.resolve_name(server_app)(grid=grid, context=context)
            except BaseException as error:  # noqa: BLE001  `check` raises it again
                failure = {"kind": type(error).__name__, "text": str(error), "traceback": traceback.format_exc()}
            pipe.write(json.dumps(failure).encode())

    return app


def wait_for(grid: Grid, count: int) -> None:
    """Wait until `count` nodes are connected, and log their number from time to time.

    Flower calls a ServerApp while it still registers nodes: strategies would sample from the first few only.
    """
    logged = time.monotonic()
    while (connected := len(list(grid.get_node_ids()))) < count:
        if time.monotonic() - logged > _LOG_INTERVAL:
            logged = time.monotonic()
            _log.info("waiting for nodes: %d of %d are connected", connected, count)
        time.sleep(0.02)


def check(report: bytes) -> None:
    """Raise the error of the hosted ServerApp, if it failed; `report` is all that it wrote to the pipe.

    A fedpress error is raised as itself, any other as a FedpressError that names it. A note has the traceback.
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


class Report:
    """Creates the pipe to which a hosted ServerApp reports, and reads from it."""

    def __init__(self, pipe: Path) -> None:
        pipe.unlink(missing_ok=True)
        os.mkfifo(pipe, 0o600)
        self.pipe = pipe
        self._handle = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        self.text = b""

    @property
    def broken(self) -> bool:
        """Whether the ServerApp was killed, if it has ended: its report is incomplete."""
        return self.text in (b"", HELLO)

    def is_over(self) -> bool:
        """Read the pipe; return whether the ServerApp has started and ended, for whatever reason."""
        try:
            while chunk := os.read(self._handle, 1 << 16):
                self.text += chunk
        except BlockingIOError:  # the ServerApp is still running
            return False
        return bool(self.text)

    def __enter__(self) -> "Report":
        return self

    def __exit__(self, *_: object) -> None:
        self.is_over()
        os.close(self._handle)
        self.pipe.unlink(missing_ok=True)
