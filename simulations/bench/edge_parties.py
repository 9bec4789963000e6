"""The two contenders of `bench edge`, fedpress and Flower: a server, and devices behind one proxy each."""

import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import psutil
from cryptography.hazmat.primitives import serialization

from fedpress.client.edge.enrolment import read_enrolment
from fedpress.common.errors import FedpressError
from fedpress.common.settings import Value, toml
from fedpress.server import keys
from fedpress.server.deploy.superlink import SuperLink
from fedpress.server.run import launcher
from fedpress.server.run.bundle import Report, write_bundle
from fedpress.simulations.bench.counting_proxy import HOST, CountingProxy
from fedpress.simulations.bench.edge_device import PLACE
from fedpress.simulations.bench.edge_server import HERE

PATIENCE = 600.0  # seconds until a wait for a contender fails
ROOT = "root.pem"
_STOP = 30.0


class EdgeContender(Protocol):
    """A server, and devices that talk to it."""

    devices: list[psutil.Popen]
    lines: list[CountingProxy]

    def begin(self, place: Path, nodes: int, settings: Mapping[str, Value]) -> None:
        """Start a run for `nodes` nodes, and as many devices."""

    def over(self) -> bool:
        """Return whether the run has ended; raise FedpressError if it failed."""

    def end_server(self) -> None:
        """Stop the server, if it has not ended."""

    def close(self) -> None:
        """Stop all processes."""


class FedpressContender:
    """`fedpress server` and `fedpress client`."""

    def __init__(self, app: str) -> None:
        self.devices: list[psutil.Popen] = []
        self.lines: list[CountingProxy] = []
        self._app = app
        self._server: psutil.Popen | None = None
        self._stack = ExitStack()
        self._place = Path()

    def begin(self, place: Path, nodes: int, settings: Mapping[str, Value]) -> None:
        self._place = place
        folder, port = place / "keys", launcher.free_port()
        keys.init(folder, [HOST])
        enrolments = [place / f"device-{number}.enrol" for number in range(nodes)]
        for number, path in enumerate(enrolments):
            name = f"device-{number}"
            keys.issue(folder, name, path, server=f"{HOST}:{port}", node={"partition-id": number})
        given = {"per-round": nodes, "nodes": nodes, **settings}
        words = [word for key, value in given.items() for word in ("--set", f"{key}={toml(value)}")]
        where = ["--keys", folder, "--listen", f"{HOST}:{port}", "--out", place / "run"]
        self._server = _start(place / "server.log", "server", *where, *words)
        self._stack.callback(lambda: end(self._server))
        wait_for(lambda: launcher.listens(port) or not self._alive(), "the server to listen")
        for number, path in enumerate(enrolments):
            line = self._stack.enter_context(CountingProxy((HOST, port)))
            state = ["--state", place / f"state-{number}", "--server", line.address, "--app", self._app]
            state += ["--set", 'tasks=["edge_device:images", "edge_device:nothing"]']
            device = _start(place / f"device-{number}.log", "client", path, *state)
            self._stack.callback(end, device)
            self.lines.append(line)
            self.devices.append(device)

    def over(self) -> bool:
        code = self._server.poll() if self._server else None
        if code:
            raise FedpressError(f"fedpress server failed: {_last(self._place / 'server.log')}")
        return code == 0

    def end_server(self) -> None:
        end(self._server)

    def close(self) -> None:
        self._stack.close()

    def _alive(self) -> bool:
        return not self.over()


class FlowerContender:
    """Flower's SuperLink and SuperNodes, with TLS and node authentication, without fedpress."""

    def __init__(self) -> None:
        self.devices: list[psutil.Popen] = []
        self.lines: list[CountingProxy] = []
        self._stack = ExitStack()
        self._report: Report | None = None
        self._link: SuperLink | None = None

    def begin(self, place: Path, nodes: int, settings: Mapping[str, Value]) -> None:
        (place / "run").mkdir()
        config = {"server.rounds": settings["rounds"], "server.per-round": nodes, "simulation.clients": nodes}
        pipe, bundle = place / "report", place / "bundle"
        write_bundle(bundle, f"{HERE}:app", "edge_device:stock", num_clients=nodes, run_config=config, report=pipe)
        self._report = self._stack.enter_context(Report(pipe))
        link = self._link = SuperLink(place / "run", authenticated=True)
        self._stack.callback(link.stop)
        link.start()
        (place / ROOT).write_bytes(link.root)
        folder = place / "keys"
        keys.init(folder, [HOST])
        with link.control() as control:
            for number in range(nodes):
                enrolment = place / f"device-{number}.enrol"
                device = keys.issue(folder, f"device-{number}", enrolment, server=link.address)
                control.register(device.name, device.pem)
                self._start(place, number, enrolment, link.port)
            control.start_run(bundle, {})

    def _start(self, place: Path, number: int, enrolment: Path, port: int) -> None:
        line = self._stack.enter_context(CountingProxy((HOST, port)))
        key = place / f"key-{number}"
        openssh = (serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
        key.touch(0o600)
        key.write_bytes(read_enrolment(enrolment).key.private_bytes(*openssh))
        node = Path(sysconfig.get_path("scripts")) / "flower-supernode"
        command: list[object] = [node, "--superlink", line.address, "--root-certificates", place / ROOT]
        command += ["--auth-supernode-private-key", key, "--port", launcher.free_port()]
        command += ["--node-config", f"partition-id={number}"]
        home = {"FLWR_HOME": str(place / f"home-{number}")}
        device = _spawn(place / f"device-{number}.log", command, home)
        self._stack.callback(end, device)
        self.lines.append(line)
        self.devices.append(device)

    def over(self) -> bool:
        if self._report is None or not self._report.is_over():
            return False
        if self._report.text.strip() != b"{}":
            raise FedpressError(f"the stock ServerApp failed: {self._report.text.decode(errors='replace')[:500]}")
        return True

    def end_server(self) -> None:
        if self._link:
            self._link.stop()

    def close(self) -> None:
        self._stack.close()


def wait_for(found: Callable[[], object], what: str) -> None:
    """Wait until `found` returns a true value; raise FedpressError if it takes too long."""
    end = time.monotonic() + PATIENCE
    while not found():
        if time.monotonic() > end:
            raise FedpressError(f"waiting for {what} took longer than {PATIENCE:.0f} s")
        time.sleep(0.02)


def environment(place: Path, more: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the benchmark's processes."""
    path = [str(place), *(entry or str(Path.cwd()) for entry in sys.path)]
    return {
        **os.environ,
        PLACE: str(place),
        "PYTHONPATH": os.pathsep.join(path),
        "PATH": os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)]),
        "OMP_NUM_THREADS": "1",
        "FLWR_HOME": str(place / "home"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        **more,
    }


def _start(log: Path, *words: object) -> psutil.Popen:
    return _spawn(log, [sys.executable, "-m", "fedpress", *words], {})


def _spawn(log: Path, command: Sequence[object], more: Mapping[str, str]) -> psutil.Popen:
    with log.open("wb") as out:
        return psutil.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment(log.parent, more),
            start_new_session=True,
        )


def end(process: psutil.Popen | None) -> None:
    """Stop a process and all its descendants."""
    if process is None or process.poll() is not None:
        return
    family = [process, *process.children(recursive=True)]
    process.terminate()
    _, alive = psutil.wait_procs(family, timeout=_STOP)
    for left in alive:
        left.kill()
    psutil.wait_procs(alive, timeout=_STOP)


def _last(log: Path) -> str:
    return " ".join(log.read_text(errors="replace").strip().splitlines()[-1:])
