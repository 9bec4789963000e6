"""Laws of how workers start, and of how all processes end, whatever runs in the process that simulates."""

import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from fedpress.common.errors import FedpressError, SettingError
from fedpress.common.logs import log_to_file
from fedpress.simulations import simulate

from .engineapps import ask, out, said

SIZE = 1 << 27  # bytes of large data, several times what a worker needs for itself


@contextmanager
def a_thread() -> Iterator[None]:
    """A thread beside the simulation's, as notebooks and progress bars have."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextmanager
def a_socket() -> Iterator[None]:
    """An open socket."""
    near, far = socket.socketpair()
    with near, far:
        yield


def descriptors() -> set[str]:
    """Sockets and pipes of this process, standard streams left out."""
    links = [(path.name, str(path.readlink())) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    return {link for number, link in links if int(number) > 2 and link.startswith(("socket:", "pipe:"))}


@pytest.mark.parametrize("beside", [a_thread, a_socket])
def test_workers_inherit_no_thread_and_no_descriptor(beside) -> None:
    def work(message, context):
        return out([*descriptors(), str(sum(1 for _ in Path("/proc/self/task").iterdir()))])

    with beside():
        mine = descriptors()
        (row,), done = ask(work, clients=2, workers=1)
    assert done.failures == 0
    for reply in row.values():
        *theirs, threads = said(reply)
        assert threads == "1"
        assert not mine & set(theirs)


STARTS = """
import logging, sys, threading
from engineapps import tutorial
from fedpress.simulations import simulate
logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
logging.getLogger("flwr").setLevel(logging.ERROR)

def model():
    done = simulate(*tutorial(), num_clients=4, workers=2)
    assert done.failures == 0
    return done.context.state["model"].to_numpy_ndarrays()[0].tobytes()

forked = model()
if sys.argv[1] == "thread":
    threading.Thread(target=threading.Event().wait, daemon=True).start()
else:
    import torch
    torch.set_num_threads(2)
    torch.ones(1 << 20).exp()  # starts threads that Python does not know
assert model() == forked
"""


@pytest.mark.parametrize("beside", ["thread", "library"])
def test_a_process_with_threads_is_not_forked_and_the_bits_are_the_same(beside: str) -> None:
    command = [sys.executable, "-c", STARTS, beside]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=Path(__file__).parent)
    assert done.returncode == 0, done.stderr
    starts = [line for line in done.stdout.splitlines() if line.startswith("workers are")]
    assert ["anew" in line for line in starts] == [False, True]


def test_two_simulations_at_once() -> None:
    results, both = {}, threading.Barrier(2, timeout=60)

    def run(number: int) -> None:
        def each(round_: int) -> None:
            both.wait()  # neither ends before the other is here too

        rows, done = ask(
            lambda message, context: out(100 * number + context.node_config["partition-id"]),
            clients=4,
            rounds=2,
            each=each,
        )
        results[number] = done.failures, [[said(row[i]) for i in range(4)] for row in rows]

    threads = [threading.Thread(target=run, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == {number: (0, [[100 * number + i for i in range(4)]] * 2) for number in (1, 2)}


@pytest.mark.parametrize("beside", [a_thread, None])
def test_processes_of_clients_end_and_those_of_the_user_live(beside, tmp_path: Path) -> None:
    script = f"setsid sleep 600 & echo $! >> {tmp_path}/pids; sleep 600 & echo $! >> {tmp_path}/pids"

    def work(message, context):
        subprocess.run(["bash", "-c", script], check=True)  # whose own parent has ended at once
        child = subprocess.Popen(["sleep", "600"])
        with (tmp_path / "pids").open("a") as file:
            file.write(f"{child.pid}\n")

    started = []
    server, client = ServerApp(), ClientApp()

    @client.query()
    def query(message, context):
        work(message, context)
        return Message(RecordDict(), reply_to=message)

    @server.main()
    def main(grid, context):
        grid.send_and_receive([Message(RecordDict(), node, "query") for node in grid.get_node_ids()])
        started.append(subprocess.Popen(["sleep", "600"], close_fds=False))

    started.append(subprocess.Popen(["sleep", "600"]))
    try:
        if beside:
            with beside():
                simulate(server, client, num_clients=2, workers=2)
        else:
            simulate(server, client, num_clients=2, workers=2)
        pids = [int(line) for line in (tmp_path / "pids").read_text().split()]
        assert len(pids) == 6
        assert not [pid for pid in pids if psutil.pid_exists(pid)]
        assert [process.poll() for process in started] == [None, None]
    finally:
        for process in started:
            process.kill()
            process.wait()


def test_what_a_server_app_forks_does_not_hold_up_the_end() -> None:
    server, client, forked = ServerApp(), ClientApp(), []

    @client.query()
    def query(message, context):
        return Message(RecordDict(), reply_to=message)

    @server.main()
    def main(grid, context):
        pid = os.fork()  # as a DataLoader does: it holds all descriptors of this process
        if pid == 0:
            time.sleep(600)
            os._exit(0)
        forked.append(pid)
        grid.send_and_receive([Message(RecordDict(), node, "query") for node in grid.get_node_ids()])

    try:
        simulate(server, client, num_clients=2, workers=1)
    finally:
        os.kill(forked[0], 9)
        os.waitpid(forked[0], 0)


class Reports(logging.Handler):
    """Keeps warnings, and calls a function at each."""

    def __init__(self, then: Callable[[], object] = lambda: None) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []
        self._then = then

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        self._then()


@contextmanager
def reports(monkeypatch: pytest.MonkeyPatch, then: Callable[[], object] = lambda: None) -> Iterator[list[str]]:
    """Have stalls reported after less than a second, and yield the warnings."""
    monkeypatch.setattr("fedpress.simulations.engine.stalls._PERIOD", 0.5)
    monkeypatch.setattr("fedpress.simulations.engine.stalls._LONG", 0.7)
    handler = Reports(then)
    logging.getLogger("fedpress").addHandler(handler)
    try:
        yield handler.lines
    finally:
        logging.getLogger("fedpress").removeHandler(handler)


def spin(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def test_a_client_without_progress_is_reported_with_its_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def release() -> None:
        with suppress(OSError):
            os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))

    def waits_for_a_writer() -> None:
        pipe.read_bytes()

    def has_a_process_compute() -> None:
        subprocess.run([sys.executable, "-c", "import time\nwhile time.process_time() < 1: pass"], check=True)

    def work(message, context):
        (has_a_process_compute, waits_for_a_writer)[context.node_config["partition-id"]]()

    with reports(monkeypatch, release) as lines:
        (row,), done = ask(work, clients=2, workers=2, timeout=60.0)
    assert (len(row), done.failures) == (2, 0)
    (report,) = [line for line in lines if "waits_for_a_writer" in line]
    assert "client 1" in report


def test_a_client_that_spins_is_reported_with_its_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    def in_python() -> None:
        while True:
            pass

    def in_c() -> None:
        re.match("(a+)+$", 60 * "a" + "b")

    def work(message, context):
        if context.node_config["partition-id"]:
            (in_python, in_c)[context.node_config["partition-id"] - 1]()

    with reports(monkeypatch) as lines:
        (row,), done = ask(work, clients=3, workers=2, timeout=4.0)
    assert (len(row), done.failures) == (1, 2)
    for client, place in (("client 1", "in_python"), ("client 2", "in_c")):
        assert any(client in line and place in line for line in lines)


def test_while_no_client_has_ended_one_stands_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    with reports(monkeypatch) as lines:
        _, done = ask(lambda message, context: spin(4.0), clients=3, workers=3)
    assert done.failures == 0
    clients = [line.partition(" is ")[0] for line in lines]
    assert len(set(clients)) == 1
    assert len(clients) <= 3  # each after twice the time of the one before


def test_clients_that_take_as_long_as_others_are_not_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    with reports(monkeypatch) as lines:
        _, done = ask(lambda message, context: spin(1.5), clients=3, workers=1)
    assert done.failures == 0
    assert not [line for line in lines if "client 1" in line or "client 2" in line]


def test_an_app_that_loads_for_long_is_reported_with_its_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedpress.simulations.engine.pool._LOADING", 0.5)
    server, client = ServerApp(), ClientApp()
    reported = tmp_path / "reported"

    def loads_for_long() -> None:
        while not reported.exists():
            time.sleep(0.05)

    @client.query()
    def query(message, context):
        return Message(RecordDict(), reply_to=message)

    @server.main()
    def main(grid, context):
        grid.send_and_receive([Message(RecordDict(), node, "query") for node in grid.get_node_ids()])

    def release() -> None:
        if any("loads_for_long" in line for line in lines):
            reported.touch()

    with reports(monkeypatch, release) as lines:
        assert simulate(server, client, num_clients=1, workers=1, prepare=loads_for_long).failures == 0


def test_large_data_is_in_memory_that_workers_share() -> None:
    import torch

    array, tensor = np.ones(SIZE, np.uint8), torch.ones(SIZE // 4)

    def work(message, context):
        seen = [int(array.sum()), int(tensor.sum())]
        array[:100], tensor[:100] = 0, 0  # which nobody else sees
        # Clean pages are left out: they are shared, though the other worker may not have read them yet.
        return out([*seen, sum(part.private_dirty for part in psutil.Process().memory_maps(grouped=False))])

    with a_thread():
        (row,), _ = ask(work, clients=2, workers=2)
    for reply in row.values():
        total, sum_, copied = said(reply)
        assert (total, sum_) == (SIZE, SIZE // 4)
        assert copied < SIZE
    assert array.all()
    assert tensor.all()


def test_logs_of_clients_arrive(caplog: pytest.LogCaptureFixture) -> None:
    def work(message, context):
        logging.getLogger("a.users.app").warning("client %d speaks", context.node_config["partition-id"])

    with a_thread():
        ask(work, clients=2, workers=1)
    assert {"client 0 speaks", "client 1 speaks"} <= {record.getMessage() for record in caplog.records}


def test_logs_of_clients_go_to_the_file_of_their_simulation(tmp_path: Path) -> None:
    both = threading.Barrier(2, timeout=60)

    def run(number: int) -> None:
        with log_to_file(tmp_path / f"{number}.log"):
            both.wait()
            ask(lambda message, context: logging.getLogger("fedpress").warning("a client of %d", number))
            both.wait()

    threads = [threading.Thread(target=run, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for number in (1, 2):
        text = (tmp_path / f"{number}.log").read_text()
        assert f"a client of {number}" in text
        assert f"a client of {3 - number}" not in text


def test_an_app_that_cannot_be_sent_is_one_line_before_the_server_app_is_called() -> None:
    lock, called = threading.Lock(), []

    def work(message, context):
        with lock:
            return out(1)

    server, client = ServerApp(), ClientApp()
    client.query()(work)
    server.main()(lambda grid, context: called.append(1))
    with a_thread(), pytest.raises(SettingError, match="client_app"):
        simulate(server, client, num_clients=2, workers=1)
    assert not called


def test_an_app_that_cannot_be_loaded_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loads_once.py").write_text(
        "import pathlib, sys\n"
        "flag = pathlib.Path(__file__).with_suffix('.flag')\n"
        "if flag.exists(): raise ImportError('not a second time')\n"
        "flag.touch()\n"
        "def work(message, context): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    from loads_once import work

    with a_thread(), pytest.raises(FedpressError, match="not a second time"):
        ask(work, clients=2, workers=1)


THREADS = """
import subprocess
import sys

import torch
from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from fedpress.simulations import simulate

def use_threads():
    torch.set_num_threads(2)
    torch.ones(1 << 20).exp()  # never returns in a fork of a process that has done so

server, client = ServerApp(), ClientApp()

@client.query()
def query(message, context):
    use_threads()
    assert subprocess.run([sys.executable, "-c", "raise SystemExit(3)"]).returncode == 3
    return Message(RecordDict(), reply_to=message)

@server.main()
def main(grid, context):
    grid.send_and_receive([Message(RecordDict(), node, "query") for node in grid.get_node_ids()], timeout=60.0)

assert simulate(server, client, num_clients=3, workers=2, prepare=use_threads).failures == 0
"""


def test_workers_are_safe_if_what_they_load_starts_threads() -> None:
    subprocess.run([sys.executable, "-c", THREADS], timeout=120, check=True)


SCRIPT = """
import os, sys, threading
from dataclasses import dataclass
from multiprocessing import get_context
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from fedpress.compression.stages.identity import Identity
import fedpress
from fedpress.simulations import simulate

print("the script runs", flush=True)
threading.Thread(target=threading.Event().wait, daemon=True).start()

@dataclass(frozen=True)
class Unchanged(Identity):
    pass

fedpress.register(Unchanged)
factor = 3
double = lambda value: 2 * value

def triple(value):
    return factor * value

client, server = ClientApp(), ServerApp()

@client.query()
def query(message, context):
    with get_context("fork").Pool(1) as pool:
        (value,) = pool.map(triple, [double(context.node_config["partition-id"])])
    assert str(fedpress.codec("unchanged")) == "unchanged"
    return Message(RecordDict({"out": ConfigRecord({"value": value})}), reply_to=message)

@server.main()
def main(grid, context):
    replies = grid.send_and_receive([Message(RecordDict(), node, "query") for node in grid.get_node_ids()])
    print([reply.error if reply.has_error() else reply.content["out"]["value"] for reply in replies], flush=True)

simulate(server, client, num_clients=3, workers=2)
"""


@pytest.mark.parametrize(("place", "guard"), [("file", False), ("input", False), ("thread", True)])
def test_scripts_and_notebooks_run_once(place: str, guard: bool, tmp_path: Path) -> None:
    script = SCRIPT
    if place == "thread":  # as a web framework's handler
        script = script.replace("simulate(server", "run = threading.Thread(target=simulate, args=(server", 1)
        script = script.replace("client, num_clients=3, workers=2)", "client, 3, 2))\nrun.start(); run.join()")
    if guard:
        head, _, tail = script.rpartition("\n\n")
        script = head + '\n\nif __name__ == "__main__":\n' + "".join(f"    {line}\n" for line in tail.splitlines())
    command = [sys.executable, "-"]
    if place == "file":
        (tmp_path / "script.py").write_text(script)
        command = [sys.executable, str(tmp_path / "script.py")]
    done = subprocess.run(command, input=script, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["the script runs", "[0, 6, 12]"]
