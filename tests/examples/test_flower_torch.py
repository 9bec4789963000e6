"""The example is somebody else's Flower app with two lines of ours: it runs on every engine, to the same bits."""

import os
import re
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "flower-torch"
CLIENTS, ROUNDS = 4, 2
PATIENCE = 120.0  # seconds
IN_PROCESS = """
import sys
from fedpress.simulations import simulate
from digits.client_app import app as client_app
from digits.server_app import app as server_app
config = {"num-server-rounds": int(sys.argv[2]), "fraction-train": 0.5, "lr": 0.1, "save-to": sys.argv[3]}
simulate(server_app, client_app, num_clients=int(sys.argv[1]), workers=1, run_config=config)
"""

pytestmark = pytest.mark.skipif(not EXAMPLE.is_dir(), reason="examples are not part of the wheel")


def in_process(out: Path, rounds: int) -> str:
    """Run the example in process; return what it prints."""
    command = [sys.executable, "-c", IN_PROCESS, str(CLIENTS), str(rounds), str(out)]
    path = os.pathsep.join([str(EXAMPLE), *(entry or str(ROOT) for entry in sys.path)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return run.stdout


def test_two_lines_are_enough(tmp_path: Path) -> None:
    said = in_process(tmp_path / "model.pt", rounds=6)
    accuracy = [float(value) for value in re.findall(r"'accuracy': ([\d.]+)", said)]
    assert len(accuracy) == 7
    assert accuracy[-1] > 0.8 > accuracy[0]
    up, down = (float(ratio) for ratio in re.findall(r"([\d.]+) times fewer", said))
    assert up > 10
    assert down > 1


def test_the_tutorial_shows_the_task_as_it_is() -> None:
    text = (ROOT / "docs" / "tutorial" / "flower-app.md").read_text(encoding="utf-8")
    assert (EXAMPLE / "digits" / "task.py").read_text(encoding="utf-8") in text


def test_the_documentation_shows_the_example_as_it_is() -> None:
    text = (ROOT / "docs" / "how-to" / "flower-app.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    files = "".join(path.read_text(encoding="utf-8") for path in sorted(EXAMPLE.rglob("*.py")))
    assert len(blocks) >= 2
    for block in blocks:
        assert block in files
    apps = (EXAMPLE / "digits" / f"{name}.py" for name in ("client_app", "server_app"))
    code = [line for app in apps for line in app.read_text(encoding="utf-8").splitlines()]
    assert len([line for line in code if line.strip() and not line.startswith(("import", "from", '"""'))]) <= 40


@pytest.mark.slow
@pytest.mark.parametrize("simulated", [True, False])
def test_flower_s_own_runtimes_give_the_same_bits(simulated: bool, tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs.pt", tmp_path / "ours.pt"
    in_process(ours, rounds=ROUNDS)
    with superlink(tmp_path, simulated=simulated) as environment:
        config = f'num-server-rounds={ROUNDS} save-to="{theirs}"'
        command = ["flwr", "run", str(EXAMPLE), "here", "--stream", "--run-config", config]
        if simulated:
            command += ["--federation-config", f"num-supernodes={CLIENTS} client-resources-num-cpus=1"]
        log = tmp_path / "run.log"
        with log.open("wb") as output:
            run = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
            try:
                wait(lambda: theirs.exists() or run.poll() is not None, "the run does not end")
            finally:
                run.kill()
                run.wait()
    assert theirs.exists(), log.read_text(errors="replace")
    one, other = torch.load(ours), torch.load(theirs)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@contextmanager
def superlink(folder: Path, *, simulated: bool) -> Iterator[dict[str, str]]:
    """Start a SuperLink, and SuperNodes unless it is `simulated`, on loopback; stop them all in the end."""
    port = free_port()
    home = folder / "home"
    home.mkdir()
    (home / "config.toml").write_text(f'[superlink.here]\naddress = "127.0.0.1:{port}"\ninsecure = true\n')
    environment = {
        **os.environ,
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
        "no_proxy": "127.0.0.1",
        "NO_PROXY": "127.0.0.1",
        "PYTHONPATH": os.pathsep.join(entry or str(ROOT) for entry in sys.path),
        "PATH": os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)]),
    }
    link = ["flower-superlink", "--insecure", "--disable-runtime-dependency-installation", "--port", str(port)]
    link += ["--simulation"] if simulated else []
    with ExitStack() as stack:
        stack.enter_context(process(link, environment, folder / "superlink.log"))
        wait(lambda: listens(port), "the SuperLink does not listen")
        logs: list[Path] = []
        for partition in range(0 if simulated else CLIENTS):
            node = ["flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{port}"]
            node += ["--node-config", f"partition-id={partition} num-partitions={CLIENTS}"]
            node += ["--port", str(free_port())]
            stack.enter_context(process(node, environment, folder / f"node-{partition}.log"))
            logs.append(folder / f"node-{partition}.log")
        # A strategy samples from the nodes that are there: the same choice needs the same nodes.
        wait(lambda: all("SuperNode ID" in log.read_text(errors="replace") for log in logs), "a SuperNode is not there")
        yield environment


@contextmanager
def process(command: list[str], environment: dict[str, str], log: Path) -> Iterator[None]:
    """Run a command in a separate process group, which is killed in the end."""
    with log.open("wb") as output:
        started = subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, start_new_session=True, cwd=log.parent
        )
        try:
            yield
        finally:
            os.killpg(started.pid, signal.SIGKILL)
            started.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait(done: Callable[[], bool], complaint: str) -> None:
    end = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < end, complaint
        time.sleep(0.2)
