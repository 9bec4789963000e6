"""Real processes on loopback: a SuperLink, clients, a run."""

import re
import signal
import subprocess
import time
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from fedpress.client.edge.journal import Journal
from fedpress.client.mod.node_state import ClientState

from .conftest import Place, free_port


def check_books(place: Place, names: tuple[str, ...] = ("0", "1")) -> None:
    """What training wanted is in the model, or in the residual that a node keeps: nothing twice, nothing lost."""
    with np.load(place.folder / "model.npz") as file:
        model = file["w"].astype(np.float64)
    total = np.zeros_like(model)
    for name in names:
        journal = Journal(place.folder / f"state-{name}")
        try:
            (path,) = journal.folder.glob("state-*")
            state = journal.load(int(path.name.removeprefix("state-")))
            assert journal.letter() is None
            assert journal.work() is None
        finally:
            journal.close()
        wanted = sum(array.numpy().astype(np.float64) for array in state["wanted"].values())
        total += wanted - ClientState.load(state).after["residual"]
    np.testing.assert_allclose(model * len(names), total, atol=1e-4)


def stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


def test_two_clients_take_part_in_a_run_and_stop(place: Place) -> None:
    place.link()
    metrics, health = free_port(), free_port()
    watched = ("--metrics", f"127.0.0.1:{metrics}", "--health", f"127.0.0.1:{health}")
    clients = [place.client("0", "--debug", *watched), place.client("1", "--debug")]
    place.run()
    place.wait((place.folder / "model.npz").exists)
    place.wait(lambda: place.log("client-0").count("the reply is sent") == 3)
    with grpc.insecure_channel(f"127.0.0.1:{health}") as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="fedpress.client"))
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    said = httpx.get(f"http://127.0.0.1:{metrics}/metrics", trust_env=False).text
    requests = dict(re.findall(r'fedpress_client_requests_total\{name="(\w+)"\} (\d+)', said))
    # Three messages: who are you, and two rounds. Their records are an order and a frame; the third's names are known.
    assert requests["PullObject"] == str(2 + 3 + 2)
    assert requests["ConfirmMessageReceived"] == requests["PushMessages"] == "3"
    assert requests["PushObject"] == str(3 * 3)
    assert requests["GetRun"] == requests["ActivateNode"] == "1"
    assert "GetFab" not in requests
    assert 'fedpress_client_messages_total{kind="train"} 3.0' in said
    assert 'fedpress_client_failures_total{kind="app"} 0.0' in said
    for client in clients:
        stop(client)
    for name in ("0", "1"):
        log = place.log(f"client-{name}")
        assert "Traceback" not in log
        assert log.count("train is done") == 3  # who are you, and two rounds
    assert not (place.folder / "bundle-ran").exists()
    check_books(place)


def trained(place: Place, name: str, number: int) -> bool:
    return (place.folder / f"training-{name}-{number}").exists()


@pytest.mark.slow
def test_killed_while_it_trains_a_client_does_the_work_again(place: Place) -> None:
    place.link()
    place.client("0")
    victim = place.client("1")
    place.run(pause=3.0)
    place.wait(lambda: trained(place, "1", 2))
    victim.kill()
    victim.wait()
    place.client("1")
    place.wait((place.folder / "model.npz").exists)
    assert "a message of the last time is to be worked on" in place.log("client-1")
    time.sleep(2)  # the last reply is noted as done after the server has it
    for process in place.processes[1:]:
        process.kill()
        process.wait()
    check_books(place)


@pytest.mark.slow
def test_killed_while_it_trains_a_client_keeps_its_personal_layers(place: Place) -> None:
    place.link()
    place.client("0")
    victim = place.client("1")
    place.run(pause=3.0, personal=True)
    place.wait(lambda: trained(place, "1", 2))
    victim.kill()
    victim.wait()
    place.client("1")
    place.wait((place.folder / "model.npz").exists)
    time.sleep(2)  # the last reply is noted as done after the server has it
    for process in place.processes[1:]:
        process.kill()
        process.wait()
    check_books(place)
    for name in ("0", "1"):
        journal = Journal(place.folder / f"state-{name}")
        try:
            (path,) = journal.folder.glob("state-*")
            state = journal.load(int(path.name.removeprefix("state-")))
        finally:
            journal.close()
        steps = [array.numpy() for array in state["wanted-head"].values()]
        own = ClientState.load(state).extensions.get("personal_layers")
        assert own is not None
        assert len(steps) == 2
        np.testing.assert_array_equal(own["head"].numpy(), np.ones(7, np.float32) + steps[0] + steps[1])


@pytest.mark.slow
def test_stopped_while_it_trains_a_client_is_gone_at_once_and_the_run_goes_on(place: Place) -> None:
    place.link()
    place.client("0")
    victim = place.client("1")
    place.wait(lambda: all("connected" in place.log(f"client-{name}") for name in ("0", "1")))
    place.run(pause=8.0, rounds=1, nodes=1)
    place.wait(lambda: trained(place, "1", 1))
    stop(victim)
    folder = place.folder / "state-1"
    assert not (folder / "inbox").exists()
    assert not list(folder.glob("*.part"))
    Journal(folder).close()  # its lock went with it
    place.wait((place.folder / "model.npz").exists)


@pytest.mark.slow
def test_a_client_waits_for_its_server_and_says_so_once(place: Place, tmp_path: Path) -> None:
    client = place.client("0", "--set", "backoff-max=1.0")
    place.wait(lambda: "cannot be reached" in place.log("client-0"))
    time.sleep(5)
    assert place.log("client-0").count("cannot be reached") == 1
    place.link()
    place.wait(lambda: "connected, as node" in place.log("client-0"))
    stop(client)
