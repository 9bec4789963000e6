"""A federation outlives its clients: killed while they train, while they send, in between, and all at once."""

from collections.abc import Callable

import pytest

from .federation import UPLOAD, Federation, wait_for
from .tcp_proxy import LineConditions

pytestmark = pytest.mark.slow
Make = Callable[..., Federation]


def test_nothing_happens(make_federation: Make) -> None:
    federation = make_federation(nodes=3, rounds=4)
    federation.start_all()
    result = federation.finish()
    assert all(row["clients"] == 3 and row["failures"] == 0 for row in result["rounds"])


def test_killed_while_it_trains(federation: Federation) -> None:
    with federation.held("train-node-0") as reached:
        assert reached() == federation.clients["node-0"].process.pid
        federation.clients["node-0"].kill()


def test_killed_while_it_sends(federation: Federation) -> None:
    line = federation.line("node-0")
    stalls = line.traffic.stalls
    line.line = LineConditions(stall=UPLOAD)
    wait_for(lambda: line.traffic.stalls > stalls, "an upload of node-0")
    federation.clients["node-0"].kill()


def test_killed_between_rounds(federation: Federation) -> None:
    # The other one is held, so that the round cannot end, and this one has sent and waits.
    with federation.held("train-node-1") as reached:
        reached()
        log = federation.clients["node-0"].log
        wait_for(lambda: log.read_text().splitlines()[-1].endswith("the reply is sent"), "node-0 to have sent")
        turns = federation.line("node-0").traffic.turns
        wait_for(lambda: federation.line("node-0").traffic.turns > turns + 2, "node-0 to ask in vain")
        federation.clients["node-0"].kill()


def test_all_killed_at_once(federation: Federation) -> None:
    for name in federation.names:
        federation.clients[name].kill()


def test_killed_again_and_again(federation: Federation) -> None:
    """Whatever they were doing: at moments that nobody chose."""
    for number in range(4):
        done = federation.done
        name = federation.names[number % 2]
        federation.clients[name].kill()
        federation.start_client(name)
        federation.wait_rounds(done + 1)


def test_asked_to_stop_while_it_trains(federation: Federation) -> None:
    with federation.held("train-node-0") as reached:
        reached()
        assert federation.clients["node-0"].stop() == 0


def test_one_that_never_comes_back_is_done_without(make_federation: Make) -> None:
    federation = make_federation(nodes=3, rounds=4, settings={"per-round": 2, "timeout": 20.0})
    federation.start_all()
    federation.wait_rounds(1)
    federation.clients["node-2"].kill()
    federation.finish()
