"""A federation outlives its lines: cut, delayed, slow, and reset in the middle of an upload."""

from collections.abc import Callable

import pytest

from fedpress.simulations.network.proxy import Line

from .federation import Federation, wait_for

pytestmark = pytest.mark.slow
Make = Callable[..., Federation]
UPLOAD = 4000  # bytes that only a request with a frame has
MODEM = 64_000 / 8  # bytes a second


@pytest.fixture
def federation(make_federation: Make) -> Federation:
    made = make_federation(nodes=2, rounds=4)
    made.start_all()
    made.wait_rounds(1)
    return made


def test_cut_and_there_again(federation: Federation) -> None:
    for number in (1, 2):
        line = federation.line(federation.names[number % 2])
        federation.wait_rounds(number)
        line.line = Line(cut=True)
        line.play([(5.0, Line())])
    federation.finish()


def test_cut_in_the_middle_of_training(federation: Federation) -> None:
    with federation.held("train-node-0") as reached:
        reached()
        federation.line("node-0").line = Line(cut=True)
    federation.line("node-0").play([(5.0, Line())])
    federation.finish()


def test_silent_and_there_again(federation: Federation) -> None:
    """Packets vanish: nobody is told, and connections stand open."""
    line = federation.line("node-0")
    line.line = Line(stall=0)
    wait_for(lambda: line.traffic.stalls > 0, "a request of node-0")
    line.play([(20.0, Line(cut=True)), (0.5, Line())])
    federation.finish()


def test_delayed(federation: Federation) -> None:
    for name in federation.names:
        federation.line(name).line = Line(delay=0.4)
    federation.finish(600)


def test_throttled_to_64_kbit(federation: Federation) -> None:
    for name in federation.names:
        federation.line(name).line = Line(rate=MODEM)
    federation.finish(600)


@pytest.mark.parametrize("after", [1, UPLOAD, 6000])
def test_reset_in_the_middle_of_an_upload(after: int, federation: Federation) -> None:
    line = federation.line("node-0")
    for times in (1, 2, 3):
        line.line = Line(reset=after)
        wait_for(lambda times=times: line.traffic.resets >= times, "an upload that is reset")
        line.line = Line()
        if federation.done >= federation.rounds - 1:
            break
    federation.finish()
