"""A federation outlives its server: any of its processes, in any phase of a round, and the clients with it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil
import pytest

from fedpress.simulations.network.proxy import Line

from .federation import Federation, wait_for

pytestmark = pytest.mark.slow
Make = Callable[..., Federation]
UPLOAD = 4000  # bytes that only a request with a frame has
PROCESSES = ("supervisor", "superlink", "serverapp")


@contextmanager
def training(federation: Federation) -> Iterator[None]:
    with federation.held("train-node-0") as reached:
        reached()
        yield


@contextmanager
def sending(federation: Federation) -> Iterator[None]:
    line = federation.line("node-0")
    line.line = Line(stall=UPLOAD)
    wait_for(lambda: line.traffic.stalls > 0, "an upload of node-0")
    yield
    line.line = Line()


@contextmanager
def aggregating(federation: Federation) -> Iterator[None]:
    with federation.held("aggregate") as reached:
        reached()
        yield


PHASES = {"training": training, "sending": sending, "aggregating": aggregating}


def process(federation: Federation, which: str) -> psutil.Process:
    assert federation.server is not None
    if which == "supervisor":
        return psutil.Process(federation.server.process.pid)
    return federation.find("flower-superlink" if which == "superlink" else "flwr-serverapp")


def go_on(federation: Federation) -> None:
    """See to it that a server runs: one that ended is started again, as a service would be."""
    server = federation.server
    assert server is not None
    done = federation.done

    def settled() -> bool:
        return not server.alive or federation.done > done

    wait_for(settled, "the server to end, or to go on by itself")
    if not server.alive:
        federation.start_server(resume=True)


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("which", PROCESSES)
def test_killed(which: str, phase: str, make_federation: Make) -> None:
    federation = make_federation(nodes=2, rounds=4)
    federation.start_all()
    federation.wait_rounds(2)
    with PHASES[phase](federation):
        process(federation, which).kill()
    go_on(federation)
    federation.finish()


@pytest.mark.parametrize("phase", PHASES)
def test_server_and_clients_killed_at_once(phase: str, make_federation: Make) -> None:
    federation = make_federation(nodes=2, rounds=4)
    federation.start_all()
    federation.wait_rounds(2)
    with PHASES[phase](federation):
        for found in federation.processes():
            found.kill()
    assert federation.server is not None
    federation.server.process.wait(30)
    federation.start_server(resume=True)
    for name in federation.names:
        federation.start_client(name)
    federation.finish()


def test_asked_to_stop_and_started_again(make_federation: Make) -> None:
    federation = make_federation(nodes=2, rounds=4)
    federation.start_all()
    federation.wait_rounds(2)
    assert federation.server is not None
    assert federation.server.stop() in (0, 143)
    clients = {running.process.pid for running in federation.clients.values()}
    wait_for(lambda: {p.pid for p in federation.processes()} <= clients, "the end of all that the server started", 30)
    federation.start_server(resume=True)
    federation.finish()


def test_killed_again_and_again(make_federation: Make) -> None:
    federation = make_federation(nodes=2, rounds=8)
    federation.start_all()
    for number in range(1, 7):
        federation.wait_rounds(number)
        process(federation, PROCESSES[number % 3]).kill()
        go_on(federation)
    federation.finish()
