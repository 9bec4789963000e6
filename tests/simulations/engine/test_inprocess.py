"""Laws of the in-process engine, on apps written the way Flower's tutorials write theirs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from sklearn.datasets import load_digits

from fedpress.common.errors import SettingError
from fedpress.flower import runtime
from fedpress.simulations import simulate

from .engineapps import ask, out, said, tutorial


def files(folder: Path) -> list[int]:
    """Sizes of all files in it."""
    return [path.stat().st_size for path in folder.rglob("*") if path.is_file()]


def test_any_flower_app_runs_and_learns_with_the_same_bits_on_any_number_of_workers() -> None:
    images, labels = load_digits(return_X_y=True)
    models = []
    for workers in (1, 2, 2):
        done = simulate(*tutorial(), num_clients=10, workers=workers)
        assert done.failures == 0
        (w,) = done.context.state["model"].to_numpy_ndarrays()
        models.append(w)
    assert (np.argmax(images @ models[0], 1) == labels).mean() > 0.85
    assert np.array_equal(models[0], models[1])
    assert np.array_equal(models[1], models[2])


def test_a_server_app_does_not_wait_for_nodes_that_cannot_join() -> None:
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        FedAvg(fraction_evaluate=0.0, min_available_nodes=3).start(grid, ArrayRecord([np.zeros(3)]))

    with pytest.raises(SettingError, match="min_available_nodes"):
        simulate(server, tutorial()[1], num_clients=2, workers=1)


def test_apps_of_the_older_api_run() -> None:
    from flwr.client import NumPyClient
    from flwr.server import ServerAppComponents, ServerConfig
    from flwr.server.strategy import FedAvg as OldFedAvg

    class Client(NumPyClient):
        def get_parameters(self, config):
            return [np.zeros(3)]

        def fit(self, parameters, config):
            return [parameters[0] + 1], 1, {}

        def evaluate(self, parameters, config):
            return float(parameters[0][0]), 1, {}

    seen = []

    def server_fn(context: Context) -> ServerAppComponents:
        strategy = OldFedAvg(evaluate_fn=lambda number, arrays, config: seen.append(arrays[0].tolist()))
        return ServerAppComponents(config=ServerConfig(num_rounds=2), strategy=strategy)

    simulate(ServerApp(server_fn=server_fn), ClientApp(lambda context: Client().to_client()), num_clients=3, workers=2)
    assert seen == [[0.0] * 3, [1.0] * 3, [2.0] * 3]


def test_a_client_that_raises_fails_alone(caplog: pytest.LogCaptureFixture) -> None:
    def work(message, context):
        if context.node_config["partition-id"] == 2:
            raise LookupError("nothing here")
        return out(1)

    (row,), done = ask(work)
    assert done.failures == 1
    assert row[2].has_error()
    assert row[2].error.code == runtime.RAISED
    assert "LookupError: nothing here" in row[2].error.reason
    assert "LookupError: nothing here" in caplog.text
    assert "Traceback" in caplog.text
    assert [said(row[i]) for i in (0, 1, 3, 4, 5)] == [1] * 5


@pytest.mark.parametrize("end", [SystemExit("no data"), KeyboardInterrupt("no data"), MemoryError("no data")])
def test_a_client_that_ends_its_process_fails_only_its_reply_and_says_why(end: BaseException) -> None:
    def work(message, context):
        if context.node_config["partition-id"] == 1:
            raise end

    (row,), done = ask(work, clients=3, workers=1)
    assert done.failures == 1
    assert "no data" in row[1].error.reason


def exits_with_5() -> None:
    sys.exit(5)


def exits_with_a_text() -> None:
    sys.exit("no data")


def raises() -> None:
    raise LookupError("no data")


@pytest.mark.parametrize(("end", "code"), [(exits_with_5, 5), (exits_with_a_text, 1), (raises, 1), (tuple, 0)])
def test_a_process_that_an_app_forks_ends_there_and_the_simulation_goes_on(
    end: Callable[[], object], code: int
) -> None:
    def work(message, context):
        pid = os.fork()
        if pid == 0:
            end()
            return out("the child")
        return out(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    codes = []
    rows, done = ask(work, clients=3, rounds=2, each=lambda number: codes.append(code_of_a_fork(end)))
    assert done.failures == 0
    assert [[said(reply) for reply in row.values()] for row in rows] == [[code] * 3] * 2
    assert codes == [code] * 2


def code_of_a_fork(end: Callable[[], object]) -> int:
    """Return the exit code of a fork of the ServerApp's process that leaves the simulation."""
    pid = os.fork()
    if pid == 0:
        end()
        raise SystemExit
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_worker_that_is_killed_is_replaced_and_its_client_failed() -> None:
    def work(message, context):
        if context.node_config["partition-id"] in (0, 3):
            os.kill(os.getpid(), signal.SIGKILL)
        return out(os.getpid())

    rows, done = ask(work, rounds=2)
    assert done.failures == 4
    for row in rows:
        assert sorted(i for i, reply in row.items() if reply.has_error()) == [0, 3]
        assert row[0].error.code == runtime.CRASHED


def test_what_is_late_is_dropped_and_the_next_round_is_whole() -> None:
    def work(message, context):
        if context.node_config["partition-id"] == 1 and not context.state:
            context.state["slept"] = ConfigRecord({"x": 1})
            time.sleep(60)
        return out(context.node_config["partition-id"])

    started = time.monotonic()
    rows, _ = ask(work, clients=4, timeout=2.0)
    assert set(rows[0]) == {0, 2, 3}
    assert time.monotonic() - started < 30


def test_a_nodes_state_goes_with_it_and_is_shared_on_disk(scratch: Path) -> None:
    big = np.random.default_rng(0).bytes(1 << 18)

    def work(message, context):
        count = int(context.state["memory"]["count"]) if context.state else 0
        context.state["memory"] = ConfigRecord({"count": count + 1})
        same = Array("uint8", (len(big),), "raw", big)
        context.state["base"] = ArrayRecord({"same": same})
        if count % 2 and context.node_config["partition-id"] == 0:
            raise ValueError("the state stays as it was before")
        return out(count)

    sizes = []

    def each(number: int) -> None:
        sizes.append(sum(files(scratch)))

    rows, _ = ask(work, clients=20, rounds=4, each=each)
    assert [said(row[7]) for row in rows] == [0, 1, 2, 3]
    assert said(rows[0][0]) == 0
    assert all(row[0].has_error() for row in rows[1:])
    assert max(sizes) < 2 * len(big)  # twenty nodes hold it, one file does


def test_states_that_nobody_holds_are_deleted(scratch: Path) -> None:
    def work(message, context):
        number = message.content["out"]["value"]
        noise = np.random.default_rng([number, context.node_config["partition-id"]]).bytes(1 << 17)
        context.state["base"] = ArrayRecord({"x": Array("uint8", (len(noise),), "raw", noise)})

    sizes = []
    shared = out(0)

    def each(number: int) -> None:
        shared["out"]["value"] = number + 1
        sizes.append(sum(files(scratch)))

    ask(work, clients=5, rounds=6, content=shared, each=each)
    assert max(sizes) < 6.5 * (1 << 17)


def test_a_client_that_changes_its_message_changes_nobody_elses() -> None:
    shared = RecordDict({"c": ConfigRecord({"n": 1}), "a": ArrayRecord([np.ones(50_000)])})

    def work(message, context):
        assert message.content["c"]["n"] == 1
        assert message.content["a"]["0"].numpy().sum() == 50_000
        message.content["c"]["n"] = 2
        message.content["a"]["0"] = Array(np.zeros(3))
        return out(1)

    _, done = ask(work, workers=1, rounds=2, content=shared)
    assert done.failures == 0
    assert shared["c"]["n"] == 1


def test_ten_thousand_clients_cost_nothing_until_they_are_asked(scratch: Path) -> None:
    client, server = ClientApp(), ServerApp()
    held = []

    @client.query()
    def query(message: Message, context: Context) -> Message:
        return Message(out(context.node_config["partition-id"]), reply_to=message)

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        nodes = list(grid.get_node_ids())
        assert len(nodes) == 10_000
        for first in (0, 5000):
            replies = grid.send_and_receive([Message(RecordDict(), node, "query") for node in nodes[first : first + 3]])
            held.append([said(r) for r in replies])
        assert not files(scratch)

    simulate(server, client, num_clients=10_000, workers=2)
    assert held == [[0, 1, 2], [5000, 5001, 5002]]


def test_the_server_apps_error_comes_out() -> None:
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        raise KeyError("of the app")

    with pytest.raises(KeyError, match="of the app"):
        simulate(server, ClientApp(), num_clients=2, workers=1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_clients": 0},
        {"num_clients": 1.5},
        {"workers": 0},
        {"workers": "2"},
        {"client_app": None},
        {"client_app": ClientApp},
        {"server_app": None},
    ],
    ids=str,
)
def test_wrong_arguments_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=f"{next(iter(wrong))} must be"):
        simulate(**{"server_app": ServerApp(), "client_app": ClientApp(), "num_clients": 1, "workers": 1, **wrong})


PROGRAM = """
import os, sys, time
from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from pathlib import Path
import fedpress.simulations.engine.inprocess as run
run._MEMORY = Path(os.environ["TMPDIR"])
client, server = ClientApp(), ServerApp()
@client.query()
def query(message, context):
    os.write(1, b"working\\n")
    time.sleep(120)
@server.main()
def main(grid, context):
    grid.send_and_receive([Message(RecordDict(), node, "query") for node in grid.get_node_ids()])
run.simulate(server, client, num_clients=4, workers=2)
"""


@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_engine_leaves_no_process_and_no_file(kill: signal.Signals, tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    family = psutil.Process(process.pid).children(recursive=True)
    assert list(tmp_path.glob("fedpress-*"))
    process.send_signal(kill)
    process.stdout.close()
    process.wait(20)
    _, alive = psutil.wait_procs(family, timeout=20)
    assert len(family) == 3
    assert not alive
    deadline = time.monotonic() + 10
    while list(tmp_path.glob("fedpress-*")) and time.monotonic() < deadline:
        time.sleep(0.05)  # the last process to go tidies up
    assert not list(tmp_path.glob("fedpress-*"))


def test_flwrs_private_names_are_where_they_were() -> None:
    """If this fails, flwr has moved a name that a module of `fedpress/flower` uses."""
    from importlib.metadata import version

    from fedpress.flower.message_size import message_nbytes

    try:
        runtime.identify(3)
        message = runtime.stamp(Message(RecordDict({"a": ArrayRecord([np.zeros(1000)])}), 5, "train"), 3)
        again = runtime.message_of(*runtime.parts_of(message))
        failed = runtime.error_reply(again, runtime.RAISED, "why")
        assert again.metadata == message.metadata
        assert runtime.message_of(*runtime.parts_of(failed)).error.reason == "why"
        assert runtime.empty_run(3).run_id == 3
        assert 8000 < message_nbytes(message) < 9500
    except (ImportError, AttributeError, TypeError) as error:
        pytest.fail(f"flwr {version('flwr')} has moved a private name: {error!r}")
