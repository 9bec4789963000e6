"""A federation outlives its clients: killed while they train, while they send, in between, and all at once."""

from collections.abc import Callable

import pytest

from fedpress.simulations.network.proxy import Line

from .federation import Federation, wait_for

pytestmark = pytest.mark.slow
Make = Callable[..., Federation]
UPLOAD = 4000  # bytes that only a request with a frame has


def test_nothing_happens_and_every_law_holds(make_federation: Make) -> None:
    federation = make_federation(nodes=3, rounds=4)
    federation.start_all()
    result = federation.finish()
    assert all(row["clients"] == 3 and row["failures"] == 0 for row in result["rounds"])


def test_killed_while_it_trains(make_federation: Make) -> None:
    federation = make_federation(nodes=2, rounds=4)
    federation.start_all()
    federation.wait_rounds(2)
    with federation.held("train-node-0") as reached:
        assert reached() == federation.clients["node-0"].process.pid
        federation.clients["node-0"].kill()
    federation.start_client("node-0")
    federation.finish()


def test_killed_while_it_sends(make_federation: Make) -> None:
    federation = make_federation(nodes=2, rounds=4)
    federation.start_all()
    federation.wait_rounds(1)
    line = federation.line("node-0")
    line.line = Line(stall=UPLOAD)
    wait_for(lambda: line.traffic.stalls > 0, "an upload of node-0")
    federation.clients["node-0"].kill()
    line.line = Line()
    federation.start_client("node-0")
    federation.finish()


def test_killed_between_rounds(make_federation: Make) -> None:
    federation = make_federation(nodes=2, rounds=4)
    federation.start_all()
    federation.wait_rounds(2)
    # The other one is held, so that the round cannot end, and this one has sent and waits.
    with federation.held("train-node-1") as reached:
        reached()
        before = federation.line("node-0").traffic.turns
        wait_for(lambda: federation.line("node-0").traffic.turns > before + 6, "node-0 to poll in vain")
        federation.clients["node-0"].kill()
        federation.start_client("node-0")
        federation.check_alive()
    federation.finish()


def test_all_killed_at_once(make_federation: Make) -> None:
    federation = make_federation(nodes=3, rounds=4)
    federation.start_all()
    federation.wait_rounds(2)
    for name in federation.names:
        federation.clients[name].kill()
    for name in federation.names:
        federation.start_client(name)
    federation.finish()


def test_killed_again_and_again(make_federation: Make) -> None:
    """Whatever it was doing: at moments that nobody chose."""
    federation = make_federation(nodes=2, rounds=8)
    federation.start_all()
    for number in range(1, 7):
        federation.wait_rounds(number)
        name = federation.names[number % 2]
        federation.clients[name].kill()
        federation.start_client(name)
    federation.finish()


def test_asked_to_stop_while_it_trains(make_federation: Make) -> None:
    federation = make_federation(nodes=2, rounds=4)
    federation.start_all()
    federation.wait_rounds(2)
    with federation.held("train-node-0") as reached:
        reached()
        assert federation.clients["node-0"].stop() in (0, 143)
    federation.start_client("node-0")
    federation.finish()


def test_one_that_never_comes_back_is_done_without(make_federation: Make) -> None:
    federation = make_federation(nodes=3, rounds=5, settings={"per-round": 2, "timeout": 20.0})
    federation.start_all()
    federation.wait_rounds(2)
    federation.clients["node-2"].kill()
    federation.finish()
