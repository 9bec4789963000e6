"""A SuperLink on loopback, and clients as processes; nothing of them is left after a test."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PATIENCE = 180.0  # seconds
BUNDLE = """
[project]
name = "edge-test"
version = "0.1.0"
[tool.flwr.app]
publisher = "fedpress"
[tool.flwr.app.components]
serverapp = "edgeapps:server"
clientapp = "elsewhere:app"
[tool.flwr.app.config]
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait(done: Callable[[], bool], complaint: Callable[[], str] | str) -> None:
    end = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < end, complaint() if callable(complaint) else complaint
        time.sleep(0.1)


@dataclass
class Place:
    """A folder with a SuperLink, and the processes that use it."""

    folder: Path
    port: int
    environment: dict[str, str]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, command: list[str], name: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            started = subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=log, cwd=self.folder, start_new_session=True
            )
        self.processes.append(started)
        return started

    def link(self) -> None:
        words = ["flower-superlink", "--insecure", "--disable-runtime-dependency-installation"]
        self.start([*words, "--port", str(self.port)], "superlink")
        wait(self.listens, "the SuperLink does not listen")

    def client(self, name: str, *more: str) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-m", "fedpress", "client", "--insecure", "--server", f"127.0.0.1:{self.port}"]
        words += ["--name", name, "--state", str(self.folder / f"state-{name}"), "--app", "edgeapps:app"]
        return self.start([*words, "--set", "nice=0", *more], f"client-{name}")

    def run(self, **config: object) -> None:
        """Start the run; what it comes to is `model.npz`."""
        bundle = self.folder / "bundle"
        bundle.mkdir(exist_ok=True)
        # The bundle's own ClientApp: no device may run it, or read it.
        (bundle / "elsewhere.py").write_text(f"open({str(self.folder / 'bundle-ran')!r}, 'w')\napp = None\n")
        values = {"nodes": 2, "rounds": 2, "pause": 0.0, "out": str(self.folder / "model.npz"), **config}
        (bundle / "pyproject.toml").write_text(BUNDLE + "".join(f"{k} = {json.dumps(v)}\n" for k, v in values.items()))
        given = " ".join(f"{key}={json.dumps(value)}" for key, value in values.items())
        self.start(["flwr", "run", str(bundle), "here", "--run-config", given], "run")

    def log(self, name: str) -> str:
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def logs(self) -> str:
        return "\n".join(
            f"== {path.name}\n{path.read_text(errors='replace')[-3000:]}" for path in self.folder.glob("*.log")
        )

    def listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def wait(self, done: Callable[[], bool]) -> None:
        wait(done, self.logs)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    port = free_port()
    home = tmp_path / "home"
    home.mkdir()
    (home / "config.toml").write_text(f'[superlink.here]\naddress = "127.0.0.1:{port}"\ninsecure = true\n')
    environment = {
        **os.environ,
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "OMP_NUM_THREADS": "1",
        "no_proxy": "127.0.0.1",
        "EDGE_TEST_FOLDER": str(tmp_path),
        "PYTHONPATH": os.pathsep.join([str(HERE), *(entry or str(ROOT) for entry in sys.path)]),
        "PATH": os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)]),
    }
    made = Place(tmp_path, port, environment)
    try:
        yield made
    finally:
        for process in made.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
