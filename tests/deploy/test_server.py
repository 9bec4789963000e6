"""A whole server on loopback: real processes, real sockets, and what it leaves behind."""

import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import httpx
import psutil
import pytest
from cryptography.hazmat.primitives import serialization
from grpc_health.v1 import health_pb2, health_pb2_grpc

import fedpress
from fedpress.common.errors import FedpressError
from fedpress.flower.control_api import ControlApi
from fedpress.server.keys import init, issue, revoke
from fedpress.server.run.launcher import free_port

PATIENCE = 600.0  # seconds: machines are slow and busy
CONFIG = """
[deployment]
task = "fedpress.simulations.workloads:task"
nodes = 2

[server]
rounds = {rounds}
timeout = 600.0

[simulation]
workload = "digits"
partition = "iid"

[training]
lr = 0.1
"""


def wait_until(happens: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@dataclass
class Field:
    """A folder with keys for two devices, and the processes that were started in it."""

    folder: Path
    port: int
    started: list[subprocess.Popen[str]] = field(default_factory=list)
    family: set[psutil.Process] = field(default_factory=set)

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def start(
        self, *words: str, program: tuple[str, ...] = (sys.executable, "-m", "fedpress")
    ) -> subprocess.Popen[str]:
        found = Path(fedpress.__file__).parents[1]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(found), os.environ.get("PYTHONPATH", "")]),
            "PATH": os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)]),
            "OMP_NUM_THREADS": "1",
            "FLWR_HOME": str(self.folder / f"home{len(self.started)}"),
        }
        log = self.folder / f"{len(self.started)}-{words[0].strip('-')}.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                [*program, *words], cwd=self.folder, env=environment, text=True, stdout=output, stderr=subprocess.STDOUT
            )
        self.started.append(process)
        return process

    def serve(self, *words: str, rounds: int = 2) -> subprocess.Popen[str]:
        (self.folder / "server.toml").write_text(CONFIG.format(rounds=rounds))
        listen = ["--listen", f"127.0.0.1:{self.port}"]
        return self.start("server", "--config", "server.toml", *listen, "--out", "out", *words)

    def join(self, name: str) -> subprocess.Popen[str]:
        return self.start("client", f"{name}.enrol", "--state", f"state-{name}")

    def rounds(self) -> int:
        try:
            return len(json.loads((self.out / "result.json").read_bytes())["rounds"])
        except FileNotFoundError:
            return 0

    def below(self, process: subprocess.Popen[str], word: str) -> psutil.Process:
        """The process under `process` whose command has this word in it."""
        found: list[psutil.Process] = []

        def look() -> bool:
            for child in psutil.Process(process.pid).children(recursive=True):
                try:
                    if word in " ".join(child.cmdline()) and "launcher" not in " ".join(child.cmdline()):
                        found.append(child)
                except psutil.NoSuchProcess:
                    continue
            return bool(found)

        wait_until(look)
        return found[0]

    def note(self, process: subprocess.Popen[str]) -> None:
        """Note all that descends from a process, to be looked for in the end."""
        self.family |= set(psutil.Process(process.pid).children(recursive=True))

    def finish(self, process: subprocess.Popen[str]) -> str:
        """Wait for a good end; return what it said."""
        code = process.wait(PATIENCE)
        said = "".join(path.read_text() for path in sorted(self.folder.glob("*.log")))
        log = self.out / "server.log"
        assert code == 0, said + (log.read_text() if log.exists() else "")
        return said


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Field]:
    port = free_port()
    init(tmp_path / "keys", ["127.0.0.1"])
    for number in range(2):
        name = f"node{number}"
        issue(
            tmp_path / "keys",
            name,
            tmp_path / f"{name}.enrol",
            server=f"127.0.0.1:{port}",
            node={"partition-id": number},
        )
    site = Field(tmp_path, port)
    yield site
    for process in site.started:
        if process.poll() is None:
            site.note(process)
            process.terminate()
    for process in site.started:
        process.wait(60)
    _, alive = psutil.wait_procs(site.family, timeout=20)
    for process in alive:
        process.kill()
    assert not alive, "a process was left behind"


def test_a_run_on_two_devices_and_what_it_keeps_out(site: Field) -> None:
    server = site.serve(
        "--health", f"127.0.0.1:{(health := free_port())}", "--metrics", f"127.0.0.1:{(metrics := free_port())}"
    )
    for name in ("node0", "node1"):
        site.join(name)
    link = site.below(server, "flower-superlink")
    # From a device's place nobody starts a run, with a key or without one.
    root = (site.folder / "keys" / "ca.pem").read_bytes()
    wait_until((site.out / "nodes.json").exists)
    with ControlApi(f"127.0.0.1:{site.port}", root) as control:

        def refused() -> bool:
            with pytest.raises(FedpressError) as raised:
                control.unfinished()
            return "404" in str(raised.value)

        wait_until(refused)
    listen = ["--listen", f"127.0.0.1:{free_port()}"]
    second = site.start("server", "--config", "server.toml", *listen, "--out", "out", "--resume")
    assert second.wait(PATIENCE) == 1  # one server a folder
    assert "in use" in (site.folder / f"{site.started.index(second)}-server.log").read_text()
    wait_until(lambda: site.rounds() >= 1)
    site.note(server)
    assert {connection.laddr.ip for connection in link.net_connections() if connection.status == "LISTEN"} == {
        "127.0.0.1"
    }
    with httpx.Client(trust_env=False) as client:
        told = client.get(f"http://127.0.0.1:{metrics}/metrics").text
    assert "fedpress_nodes_online 2.0" in told
    assert 'fedpress_refusals_total{cause="path"}' in told
    with grpc.insecure_channel(f"127.0.0.1:{health}") as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=20)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    site.finish(server)
    result = json.loads((site.out / "result.json").read_bytes())
    assert [row["clients"] for row in result["rounds"]] == [2, 2]
    assert (result["config"]["workload"], result["config"]["deployment.nodes"]) == ("digits", 2)
    assert {path.name for path in site.out.iterdir()} >= {
        *("result.json", "model.safetensors", "checkpoint", "clients.csv", "server.log", "superlink.db", "nodes.json"),
    }
    assert not (site.out / "superlink").exists()
    assert not any(path.stat().st_mode & 0o077 for path in (site.out, *site.out.rglob("*"))), "open to other users"
    names = {line.split(",")[1] for line in (site.out / "clients.csv").read_text().splitlines()[1:]}
    assert names == set(json.loads((site.out / "nodes.json").read_bytes())) == {"node0", "node1"}
    log = (site.out / "server.log").read_text()
    for name in ("node0", "node1"):
        secret = json.loads((site.folder / f"{name}.enrol").read_text())["key"].splitlines()[1]
        assert secret not in log


@pytest.mark.slow
@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:9"])
def test_no_proxy_comes_between_processes_on_loopback(site: Field, proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy)
    monkeypatch.setenv("no_proxy", "fd00::/8,example.org")
    server = site.serve(rounds=1)
    for name in ("node0", "node1"):
        site.join(name)
    site.finish(server)
    assert site.rounds() == 1


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["flower-superlink", "flwr-serverapp", "server"])
def test_what_is_killed_comes_back_and_the_run_is_whole(site: Field, victim: str) -> None:
    server = site.serve("--resume", rounds=5)
    for name in ("node0", "node1"):
        site.join(name)
    wait_until(lambda: site.rounds() >= 2)
    site.note(server)
    if victim == "server":
        server.kill()
        server.wait()
        psutil.wait_procs(site.family, timeout=30)
        assert not any(process.is_running() for process in site.family)
        server = site.serve("--resume", rounds=5)
    else:
        site.below(server, victim).kill()
    site.finish(server)
    result = json.loads((site.out / "result.json").read_bytes())
    assert [row["round"] for row in result["rounds"]] == list(range(1, 6))
    assert result["final"]["accuracy"] > 0.8


@pytest.mark.slow
def test_a_federation_continues_without_a_revoked_device(site: Field) -> None:
    server = site.serve(rounds=4)
    for name in ("node0", "node1"):
        site.join(name)
    wait_until(lambda: site.rounds() >= 1)
    server.send_signal(signal.SIGTERM)
    server.wait(PATIENCE)
    done = site.rounds()
    assert 1 <= done < 4
    revoke(site.folder / "keys", "node1")
    waiting = site.serve("--resume", "--json", rounds=4)
    wait_until(lambda: any('"advice"' in path.read_text() for path in site.folder.glob("*-server.log")))
    waiting.send_signal(signal.SIGTERM)
    waiting.wait(PATIENCE)
    assert site.rounds() == done
    site.finish(site.serve("--resume", "--set", "nodes=1", rounds=4))
    rounds = json.loads((site.out / "result.json").read_bytes())["rounds"]
    assert [row["clients"] for row in rounds] == [2] * done + [1] * (4 - done)
    assert "deployment.nodes" in (site.out / "server.log").read_text()


@pytest.mark.slow
def test_sigterm_leaves_nothing(site: Field) -> None:
    server = site.serve(rounds=1000)
    for name in ("node0", "node1"):
        site.join(name)
    wait_until(lambda: site.rounds() >= 1)
    site.note(server)
    server.send_signal(signal.SIGTERM)
    assert server.wait(30) == 143
    _, alive = psutil.wait_procs(site.family, timeout=10)
    assert not alive
    assert not (site.out / "superlink").exists()


@pytest.mark.slow
def test_a_device_is_shut_out_of_a_running_server(site: Field) -> None:
    server = site.serve("--set", "min-replies=1", rounds=1000)
    for name in ("node0", "node1"):
        site.join(name)
    wait_until(lambda: site.rounds() >= 2)
    revoke(site.folder / "keys", "node1")
    wait_until(lambda: "node1" not in json.loads((site.out / "nodes.json").read_bytes()))
    wait_until(lambda: "refused: revoked" in (site.out / "server.log").read_text())
    server.send_signal(signal.SIGTERM)
    server.wait(30)


@pytest.mark.slow
def test_the_stock_supernode_takes_part(site: Field) -> None:
    server = site.serve(rounds=2)
    for number in range(2):
        enrolment = json.loads((site.folder / f"node{number}.enrol").read_text())
        key = serialization.load_pem_private_key(enrolment["key"].encode(), None)
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
        (site.folder / f"{number}.key").write_bytes(key.private_bytes(*form))
        (site.folder / "ca.pem").write_text(enrolment["ca"])
        site.start(
            *("--superlink", f"127.0.0.1:{site.port}", "--root-certificates", "ca.pem"),
            *("--auth-supernode-private-key", f"{number}.key", "--port", str(free_port())),
            *("--node-config", f'partition-id={number} name="node{number}"'),
            program=(str(Path(sys.executable).with_name("flower-supernode")),),
        )
    site.finish(server)
    assert [row["clients"] for row in json.loads((site.out / "result.json").read_bytes())["rounds"]] == [2, 2]


@pytest.mark.slow
def test_without_keys_on_loopback(site: Field) -> None:
    (site.folder / "server.toml").write_text(CONFIG.format(rounds=2))
    server = site.start(
        "server", "--config", "server.toml", "--listen", f"127.0.0.1:{site.port}", "--insecure", "--out", "out"
    )
    for number in range(2):
        site.start(
            *("--insecure", "--superlink", f"127.0.0.1:{site.port}", "--port", str(free_port())),
            *("--node-config", f'partition-id={number} name="node{number}"'),
            program=(str(Path(sys.executable).with_name("flower-supernode")),),
        )
    said = site.finish(server)
    assert "INSECURE" in said
    names = {line.split(",")[1] for line in (site.out / "clients.csv").read_text().splitlines()[1:]}
    assert names == {"node0", "node1"}  # as they say themselves
