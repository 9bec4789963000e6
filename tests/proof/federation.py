"""A federation of real processes on loopback: a server, clients each on a separate line, and the laws at the end.

Everything is waited for by what processes write, never by time. Each process is a separate group and carries a mark
in its environment, so that whatever it started is found again, wherever it went.
"""

import contextlib
import fcntl
import json
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psutil

from fedpress.server import keys

from . import laws
from .proofapps import MEET
from .tcp_proxy import HOST, LineConditions, Proxy

T = TypeVar("T")
ROOT = Path(__file__).parents[2]
PATIENCE = 900.0  # seconds after which what a test waits for is taken for lost; a busy machine is slow
UPLOAD = 4000  # bytes that only a request with a frame has
MARK = "FEDPRESS_PROOF_MARK"
TASKS = json.dumps(["proofapps:task", "proofapps:wide"])
QUICK = ("poll-max=0.5", "backoff-max=4")  # of a client, so that a test does not wait for it
UP, DOWN, KEY = "ef | topk(0.2) | pack", "topk(0.3) | pack", "uniform(8) | ans"
SETTINGS: dict[str, Any] = {
    "task": "proofapps:task",
    "app": "proofapps:server",
    "seed": 3,
    "up": UP,
    "down": DOWN,
    "key": KEY,
    "lr": 0.05,
    "batch-size": 12,
    "timeout": 60.0,
    "norm-multiple": 0.0,  # no bound: the laws compare the model with the sum of the updates as they were sent
}


def free_port() -> int:
    with socket.create_server((HOST, 0)) as probe:
        return int(probe.getsockname()[1])


def wait_for(found: Callable[[], T | None], what: str, patience: float = PATIENCE) -> T:
    """Return what `found` returns as soon as that is something."""
    end = time.monotonic() + patience
    while True:
        if result := found():
            return result
        assert time.monotonic() < end, f"waited {patience:.0f} s in vain: {what}"
        time.sleep(0.05)


@dataclass
class Running:
    """A process, and where its output goes."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-40:])

    def kill(self) -> None:
        """Let it die as a power cut would: this process alone."""
        self.process.kill()
        self.process.wait(30)

    def stop(self, patience: float = 60) -> int:
        """Ask it to end; return its exit code."""
        self.process.terminate()
        return self.process.wait(patience)


@dataclass
class Federation:
    """One server and its clients, in a folder of their own."""

    folder: Path
    nodes: int = 2
    rounds: int = 5
    settings: Mapping[str, Any] = field(default_factory=dict)
    insecure: bool = False
    server: Running | None = None
    clients: dict[str, Running] = field(default_factory=dict)
    lines: dict[str, Proxy] = field(default_factory=dict)
    started: int = 0

    def __post_init__(self) -> None:
        self.mark = uuid.uuid4().hex
        self.port = free_port()
        self.meet = self.folder / "meet"
        self.temporary = self.folder / "tmp"
        for made in (self.meet, self.temporary):
            made.mkdir(parents=True)
        self.names = [f"node-{number}" for number in range(self.nodes)]
        keys.init(self.keys, [HOST])
        for name in self.names:
            self.issue(name)

    @property
    def chosen(self) -> dict[str, Any]:
        """What of the run is set here."""
        numbers = {"rounds": self.rounds, "per-round": self.nodes, "nodes": self.nodes}
        return {**numbers, **SETTINGS, **self.settings}

    # where things are

    @property
    def keys(self) -> Path:
        return self.folder / "keys"

    @property
    def out(self) -> Path:
        return self.folder / "run"

    def enrolment(self, name: str) -> Path:
        return self.folder / f"{name}.enrol"

    def state(self, name: str) -> Path:
        return self.folder / f"state-{name}"

    @property
    def result(self) -> dict[str, Any] | None:
        with contextlib.suppress(FileNotFoundError):
            return dict(json.loads((self.out / "result.json").read_bytes()))
        return None

    @property
    def done(self) -> int:
        """Rounds that the run's folder tells of."""
        return len(self.result["rounds"]) if self.result else 0

    @property
    def log(self) -> str:
        """All that the server wrote, its log file and its output."""
        paths = [self.out / "server.log", *sorted(self.folder.glob("server-*.log"))]
        return "\n".join(path.read_text(errors="replace") for path in paths if path.exists())

    # processes

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        path = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
        if os.environ.get("PYTHONPATH"):
            path = os.pathsep.join([os.environ["PYTHONPATH"], path])
        kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
        return {
            **kept,
            MARK: self.mark,
            MEET: str(self.meet),
            "PYTHONPATH": path,
            "TMPDIR": str(self.temporary),
            "HOME": str(self.folder),
            "FLWR_HOME": str(self.folder / "flwr"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "OMP_NUM_THREADS": "1",
            **(more or {}),
        }

    def issue(self, name: str) -> Path:
        """Enrol a node, with the partition of its number."""
        node: dict[str, Any] = {"partition-id": self.names.index(name)}
        keys.issue(self.keys, name, self.enrolment(name), server=f"{HOST}:{self.port}", node=node)
        return self.enrolment(name)

    def start(
        self,
        name: str,
        *words: Any,
        module: str = "fedpress",
        more: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Running:
        self.started += 1
        log = self.folder / f"{name}-{self.started:02}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *map(str, words)],
                env=self.environment(more),
                cwd=cwd or self.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return Running(name, process, log)

    def start_server(self, *words: Any, resume: bool = False, more: Mapping[str, str] | None = None) -> Running:
        lines = [f"{key} = {json.dumps(value)}" for key, value in self.chosen.items()]
        config = self.folder / "server.toml"
        config.write_text("\n".join(lines) + "\n")
        safety = ["--insecure"] if self.insecure else ["--keys", self.keys]
        where = ["--config", config, "--listen", f"{HOST}:{self.port}", "--out", self.out]
        again = ["--resume"] if resume else []
        self.server = self.start("server", "server", *safety, *where, *again, *words, more=more)
        return self.server

    def line(self, name: str) -> Proxy:
        """The line of a node, made when it is first asked for."""
        if name not in self.lines:
            self.lines[name] = Proxy((HOST, self.port))
        return self.lines[name]

    def start_client(
        self, name: str, *words: Any, app: str = "proofapps:app", enrolment: Path | None = None, **options: Any
    ) -> Running:
        address = self.line(name).address
        place = ["--state", self.state(name), "--server", address, "--app", app]
        place += [word for pair in (f"tasks={TASKS}", *QUICK) for word in ("--set", pair)]
        running = self.start(name, "client", enrolment or self.enrolment(name), *place, *words, **options)
        self.clients[name] = running
        return running

    def start_all(self) -> None:
        self.start_server()
        self.wait_listening()
        for name in self.names:
            self.start_client(name)

    # waiting

    def wait_listening(self) -> None:
        """Wait until the server takes connections: clients that come earlier only wait longer."""

        def found() -> bool:
            self.check_alive(self.server)
            with contextlib.suppress(OSError), socket.create_connection((HOST, self.port), timeout=5):
                return True
            return False

        wait_for(found, "the server to listen")

    def check_alive(self, *whose: Running | None) -> None:
        for running in whose or (self.server, *self.clients.values()):
            if running is not None and not running.alive:
                raise AssertionError(f"{running.name} ended with {running.process.returncode}:\n{running.tail()}")

    def wait_rounds(self, number: int, patience: float = PATIENCE) -> None:
        """Wait until so many rounds are done."""

        def found() -> bool:
            if self.done < number and self.server is not None and not self.server.alive:
                code = self.server.process.returncode
                raise AssertionError(f"the server ended with {code} after {self.done} rounds:\n{self.server.tail()}")
            return self.done >= number

        wait_for(found, f"{number} rounds; {self.done} are done", patience)

    @contextlib.contextmanager
    def held(self, point: str) -> Iterator[Callable[[], int]]:
        """Hold whoever comes to `point`; what is given waits until somebody is there, and returns its process id."""
        hold, reached = self.meet / f"{point}.hold", self.meet / f"{point}.reached"
        reached.unlink(missing_ok=True)
        hold.touch()

        def waits() -> int:
            def found() -> int | None:
                self.check_alive(self.server)
                return int(reached.read_text() or 0) if reached.exists() else None

            return wait_for(found, f"somebody at {point}")

        try:
            yield waits
        finally:
            hold.unlink(missing_ok=True)

    def processes(self) -> list[psutil.Process]:
        """Everything alive that was started here, by whomever."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == self.mark:
                    found.append(process)
        return found

    def find(self, name: str) -> psutil.Process:
        """The one process that runs the command of this name."""

        def found() -> psutil.Process | None:
            for process in self.processes():
                with contextlib.suppress(psutil.Error):
                    if name in (Path(word).name for word in process.cmdline()[:2]):
                        return process
            return None

        return wait_for(found, f"a process {name}")

    # the end

    def heal(self) -> None:
        """See to it that all are there and every line is well, as a service manager would; wait until a round is done.

        A server that restarts its processes continues by itself.
        """
        for line in self.lines.values():
            line.line = LineConditions()
        for hold in self.meet.glob("*.hold"):
            hold.unlink()
        done = self.done
        if done == self.rounds:
            return

        def settled() -> bool:
            if self.server is None or not self.server.alive:
                # Killed, or asked to stop: that it fell by itself would be a fault that the next start hides.
                code = self.server.process.returncode if self.server else 0
                if code in (1, 2):
                    self.server, fallen = None, self.server
                    raise AssertionError(f"the server fell by itself:\n{fallen.tail()}")
                self.start_server(resume=self.out.exists())
                self.wait_listening()
            for name in self.names:
                if name not in self.clients or not self.clients[name].alive:
                    self.start_client(name)
            # What a killed server leaves may end its round before it notices that it is alone.
            return self.done > done and (self.server.alive or self.done == self.rounds)

        wait_for(settled, f"a round after the {done} that are done")

    def check_so_far(self) -> None:
        """Check the laws of model and residuals while the server is held before its next aggregation."""
        while True:
            with self.held("aggregate") as reached:
                reached()
                number = int((self.meet / "aggregate.round").read_text())
                # A round that is gone through again is in the run's folder already: the next one is awaited.
                if self.done == number - 1:
                    laws.check_model(self, number - 1)
                    laws.check_residuals(self, number - 1)
                    return

    def finish(self, patience: float = PATIENCE) -> dict[str, Any]:
        """Wait for the run's end, stop the clients, and check every law; return the result."""
        assert self.server is not None
        wait_for(lambda: not self.server.alive, f"the end of the run; {self.done} rounds are done", patience)
        assert self.server.process.returncode == 0, self.server.tail()
        for running in self.clients.values():
            if running.alive:
                assert running.stop() in (0, 143), running.tail()
        result = self.result
        assert result is not None
        assert [row["round"] for row in result["rounds"]] == list(range(1, self.rounds + 1))
        laws.check_model(self, self.rounds)
        laws.check_residuals(self, self.rounds)
        self.check_nothing_left()
        return result

    def close(self) -> None:
        """Let nothing survive the test, whatever became of it."""
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()
        for running in (self.server, *self.clients.values()):
            if running is not None:
                running.process.wait(30)
        for line in self.lines.values():
            line.close()

    def check_nothing_left(self) -> None:
        """No process, no port, no lock, no temporary file."""
        wait_for(lambda: not self.processes(), f"the end of {[p.cmdline() for p in self.processes()]}", 30)
        with socket.create_server((HOST, self.port)):
            pass
        for path in self.folder.rglob("*"):
            if path.is_file() and "lock" in path.name:
                with path.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
