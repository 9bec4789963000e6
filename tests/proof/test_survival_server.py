"""A federation outlives its server: any of its processes, in any phase of a round, and the clients with it."""

from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from .federation import UPLOAD, Federation, wait_for
from .tcp_proxy import LineConditions

pytestmark = pytest.mark.slow
PROCESSES = ("supervisor", "superlink", "serverapp")


@contextmanager
def training(federation: Federation) -> Iterator[None]:
    with federation.held("train-node-0") as reached:
        reached()
        yield


@contextmanager
def sending(federation: Federation) -> Iterator[None]:
    line = federation.line("node-0")
    stalls = line.traffic.stalls
    line.line = LineConditions(stall=UPLOAD)
    wait_for(lambda: line.traffic.stalls > stalls, "an upload of node-0")
    yield
    line.line = LineConditions()


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
    return federation.find("flower-superlink") if which == "superlink" else federation.find("flwr-serverapp")


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("which", PROCESSES)
def test_killed(which: str, phase: str, federation: Federation) -> None:
    with PHASES[phase](federation):
        process(federation, which).kill()
        if which == "supervisor" and federation.server is not None:
            federation.server.process.wait(60)


@pytest.mark.parametrize("phase", PHASES)
def test_server_and_clients_killed_at_once(phase: str, federation: Federation) -> None:
    with PHASES[phase](federation):
        for found in federation.processes():
            found.kill()
    assert federation.server is not None
    for running in (federation.server, *federation.clients.values()):
        running.process.wait(60)


def test_asked_to_stop_and_started_again(federation: Federation) -> None:
    assert federation.server is not None
    assert federation.server.stop() in (0, 143)
    clients = {running.process.pid for running in federation.clients.values()}
    wait_for(lambda: {p.pid for p in federation.processes()} <= clients, "the end of all that the server started", 60)


def test_killed_again_and_again(federation: Federation) -> None:
    """Whatever they were doing: at moments that nobody chose."""
    for which in PROCESSES:
        process(federation, which).kill()
        federation.heal()
