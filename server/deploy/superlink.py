"""flwr's SuperLink as a process of ours: on loopback only, with a certificate of its own, gone when we are."""

import os
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

from fedpress.common.errors import FedpressError
from fedpress.common.proxy import direct_to_loopback
from fedpress.flower.control_api import ControlApi
from fedpress.server.keys.authority import CA_CERTIFICATE, CERTIFICATE, KEY, init
from fedpress.server.run import launcher

LOG, DATABASE, HOME = "server.log", "superlink.db", "superlink"
_START = 120.0  # seconds until it must answer


class SuperLink:
    """A SuperLink over the run's folder; `start` it, ask whether it is `alive`, `stop` it.

    Parameters
    ----------
    folder : Path
        Of the run: its database, its log and its Flower home are kept there.
    authenticated : bool
        Whether nodes need a key that is registered.
    """

    def __init__(self, folder: Path, *, authenticated: bool) -> None:
        self._folder = folder
        self._authenticated = authenticated
        self._process: subprocess.Popen[bytes] | None = None
        self._home = folder / HOME
        self._home.mkdir(mode=0o700, exist_ok=True)
        self._keys = self._home / "keys"  # of loopback alone: devices never see them
        shutil.rmtree(self._keys, ignore_errors=True)
        init(self._keys, ["127.0.0.1"])
        self.root = (self._keys / CA_CERTIFICATE).read_bytes()
        self.port = launcher.free_port()

    @property
    def address(self) -> str:
        """The address that it listens on."""
        return f"127.0.0.1:{self.port}"

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it, and wait until it answers; raise FedpressError if it does not."""
        command = ["flower-superlink", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--database", str(self._folder / DATABASE), "--disable-runtime-dependency-installation"]
        command += ["--ssl-ca-certfile", str(self._keys / CA_CERTIFICATE)]
        command += ["--ssl-certfile", str(self._keys / CERTIFICATE), "--ssl-keyfile", str(self._keys / KEY)]
        if self._authenticated:
            command.append("--enable-supernode-auth")
        self._process = subprocess.Popen(
            launcher.command(self._folder / LOG, self.port, command, None, None),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env=_environment(self._home),
            start_new_session=True,  # Ctrl-C is for us: what we started is stopped by `stop`
        )
        deadline = time.monotonic() + _START
        while not self._answers():
            if not self.alive or time.monotonic() > deadline:
                self.stop()
                raise FedpressError(f"SuperLink does not start: {self._folder / LOG} says why")
            time.sleep(0.05)

    def settle(self) -> bool:
        """Wait until it answers or is gone for good; return whether it answers."""
        deadline = time.monotonic() + _START
        while self.alive and time.monotonic() < deadline:
            if self._answers():
                return True
            time.sleep(0.05)
        self.stop()
        return False

    def stop(self) -> None:
        """Stop it and all that it started, and wait until they are gone."""
        if self._process is None:
            return
        if self._process.stdin:
            self._process.stdin.close()  # the launcher's standard input ends: it kills what it started
        self._process.wait()
        self._process = None

    def control(self) -> ControlApi:
        """Return a connection to its control API."""
        return ControlApi(self.address, self.root)

    def _answers(self) -> bool:
        if not launcher.listens(self.port):
            return False
        try:
            with self.control() as control:
                control.nodes()
        except FedpressError:
            return False
        return True


def _environment(home: Path) -> dict[str, str]:
    inherited = os.environ
    return {
        **inherited,
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_LOG_LEVEL": "WARNING",  # else a line for every request of every node
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "1",  # seconds until the run is noticed, a request each
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path),
        "PATH": os.pathsep.join([sysconfig.get_path("scripts"), inherited.get("PATH", os.defpath)]),
        **direct_to_loopback(inherited),
    }
