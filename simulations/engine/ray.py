"""`run_ray`: any Flower apps under Flower's own simulation runtime, which runs clients on Ray.

It runs `flwr run` on a separate SuperLink, on a free port and with a separate Flower home: `run_simulation` is
deprecated, and takes no run configuration. All processes and files are removed at the end of the call.
"""

import logging
import os
import re
import select
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from fedpress.common.errors import FedpressError, SettingError
from fedpress.common.logs import LOGGER
from fedpress.common.proxy import direct_to_loopback
from fedpress.server.run import launcher
from fedpress.server.run.bundle import Report, check, write_bundle
from fedpress.simulations.engine.base import EngineRun

_log = logging.getLogger(LOGGER)
_CONNECTION = "fedpress"  # the SuperLink's name in its Flower home
_QUIET = 1.0  # seconds without a line after which the log is complete: flwr forwards lines every 0.7 s
_SHORT = 27  # Ray adds up to 80 bytes to the path of a temporary folder, and a socket's path has 107 at most
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_LEVEL = re.compile(r"(DEBUG|INFO|WARNING|ERROR) *: *")


class RayEngine:
    """Runs both apps under Flower's simulation runtime, which keeps the nodes' states itself: see `run_ray`."""

    def run(self, run: EngineRun) -> None:
        """Run the federation until its ServerApp returns: see `Engine.run`."""
        if run.arrives is not None:
            raise SettingError("deadlines and dropouts are simulated in process: engine must be 'inprocess', got 'ray'")
        with run.watching:
            run_ray(
                run.server_app,
                run.client_app,
                num_clients=run.num_clients,
                workers=run.workers or len(os.sched_getaffinity(0)),
                run_config=run.run_config,
            )


def run_ray(
    server_app: str,
    client_app: str,
    *,
    num_clients: int,
    workers: int,
    run_config: Mapping[str, str | int | float | bool],
) -> None:
    """Run a ServerApp and a ClientApp under Flower's simulation runtime.

    Results are what the ServerApp writes. The apps are imported as this process would import them, and run in its
    working directory. If the environment variable `RAY_ADDRESS` names a cluster, ClientApps run there, one on each of
    its cores. They see all GPUs. A client that raises fails alone, but Flower continues to use an actor that died, and
    every client that is assigned to it fails.

    Parameters
    ----------
    server_app, client_app : str
        The two apps, each named "module:object".
    num_clients : int
        Number of nodes, at least 1.
    workers : int
        Number of Ray actors, at least 1; unused on a cluster.
    run_config : mapping of str to str, int, float or bool
        Flower's run configuration, for both apps.

    Raises
    ------
    SettingError
        If a number is out of range, or TOML cannot represent the run configuration.
    FedpressError
        If the ServerApp raises, or the runtime ends before it; processes and temporary files are removed before.
    """
    if num_clients < 1:
        raise SettingError(f"num_clients must be at least 1, got {num_clients}")
    if workers < 1:
        raise SettingError(f"workers must be at least 1, got {workers}")
    parent = tempfile.gettempdir() if len(tempfile.gettempdir()) <= _SHORT else "/tmp"  # noqa: S108
    with tempfile.TemporaryDirectory(prefix="fp-", dir=parent, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        pipe = folder / "report"
        write_bundle(
            folder / "bundle", server_app, client_app, num_clients=num_clients, run_config=run_config, report=pipe
        )
        with Report(pipe) as report, _launched(folder, _federation(num_clients, workers)) as output:
            reason = _forward(_lines(output, report.is_over))
        if report.broken:
            raise FedpressError(f"Flower's simulation runtime ended before the ServerApp did: {reason}")
        check(report.text)


def _federation(num_clients: int, workers: int) -> str:
    settings = {"num-supernodes": num_clients, "client-resources-num-cpus": 1, "client-resources-num-gpus": 0.0}
    if "RAY_ADDRESS" not in os.environ:  # the size of a cluster is given
        settings["init-args-num-cpus"] = workers
    return " ".join(f"{key}={value}" for key, value in settings.items())


@contextmanager
def _launched(folder: Path, federation: str) -> Iterator[IO[bytes]]:
    """Start a SuperLink and, on it, the run of the bundle in `folder`; yield their output; stop both at the end."""
    port = launcher.free_port()
    connection = f'[superlink.{_CONNECTION}]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    (folder / "config.toml").write_text(connection, encoding="utf-8")
    # The last flag keeps flwr from installing the bundle's dependencies.
    superlink = ["flower-superlink", "--insecure", "--simulation", "--disable-runtime-dependency-installation"]
    superlink += ["--host", "127.0.0.1", "--port", str(port)]
    run = ["flwr", "run", str(folder / "bundle"), _CONNECTION, "--stream", "--federation-config", federation]
    process = subprocess.Popen(
        launcher.command(folder / "superlink.log", port, superlink, run, folder),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=_environment(folder),
        start_new_session=True,  # Ctrl-C reaches this process alone, which stops the others below
    )
    try:
        yield cast("IO[bytes]", process.stdout)
    finally:
        process.communicate()  # closes its standard input, at which it stops its processes, and waits for it


def _environment(folder: Path) -> dict[str, str]:
    inherited = os.environ
    return {
        **inherited,
        "FLWR_HOME": str(folder),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",  # seconds between two checks for new runs
        "RAY_TMPDIR": str(folder),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray would hide GPUs from actors that do not request them
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path),
        "PATH": os.pathsep.join([sysconfig.get_path("scripts"), inherited.get("PATH", os.defpath)]),
        **direct_to_loopback(inherited),
    }


def _lines(stream: IO[bytes], done: Callable[[], bool]) -> Iterator[str]:
    """Yield lines until the stream ends, or is silent for a while once the run is `done`."""
    rest = b""
    while True:
        if select.select([stream], [], [], _QUIET)[0]:
            chunk = os.read(stream.fileno(), 1 << 16)
            *whole, rest = (rest + chunk).split(b"\n")
            yield from (line.decode(errors="replace") for line in whole)
            if not chunk:
                break
        elif done():
            break
    if rest:
        yield rest.decode(errors="replace")


def _forward(lines: Iterator[str]) -> str:
    """Forward Flower's log to fedpress's logger; return the line of the first error, or the last line."""
    level, error, text = "INFO", "", "its log is empty"
    for coloured in lines:
        line = _COLOURS.sub("", coloured).rstrip()
        if head := _LEVEL.match(line):
            level, line = head[1], line[head.end() :]
        if not line:
            continue
        text = line.strip()
        if head and level == "ERROR":
            error = error or text
        # Flower's warnings are about commands and flags that the user does not see.
        _log.log(logging.ERROR if level == "ERROR" else logging.INFO, "%s", line)
    return error or text
