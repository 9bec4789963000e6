"""A federation outlives its lines: cut, delayed, slow, and reset in the middle of an upload."""

import pytest

from .federation import UPLOAD, Federation, wait_for
from .tcp_proxy import LineConditions

pytestmark = pytest.mark.slow
MODEM = 64_000 / 8  # bytes a second


def test_cut_and_there_again(federation: Federation) -> None:
    for name in federation.names:
        federation.line(name).line = LineConditions(cut=True)
        federation.line(name).play([(5.0, LineConditions())])
        federation.wait_rounds(federation.done + 2)


def test_cut_in_the_middle_of_training(federation: Federation) -> None:
    with federation.held("train-node-0") as reached:
        reached()
        federation.line("node-0").line = LineConditions(cut=True)
    log = federation.clients["node-0"].log
    wait_for(lambda: "cannot be reached" in log.read_text().splitlines()[-1], "node-0 to notice")


def test_silent_and_there_again(federation: Federation) -> None:
    """Packets vanish: nobody is told, and connections stand open."""
    line = federation.line("node-0")
    stalls = line.traffic.stalls
    line.line = LineConditions(stall=0)
    wait_for(lambda: line.traffic.stalls > stalls, "a request of node-0")
    line.play([(20.0, LineConditions(cut=True)), (0.5, LineConditions())])
    wait_for(lambda: line.line == LineConditions(), "the line to be well")


def test_delayed(federation: Federation) -> None:
    for name in federation.names:
        federation.line(name).line = LineConditions(delay=0.4)
    federation.wait_rounds(federation.done + 2)


def test_throttled_to_64_kbit(federation: Federation) -> None:
    for name in federation.names:
        federation.line(name).line = LineConditions(rate=MODEM)
    federation.wait_rounds(federation.done + 2)


@pytest.mark.parametrize("after", [1, UPLOAD, 6000])
def test_reset_in_the_middle_of_an_upload(after: int, federation: Federation) -> None:
    line = federation.line("node-0")
    for _ in range(3):
        resets = line.traffic.resets
        line.line = LineConditions(reset=after)
        wait_for(lambda resets=resets: line.traffic.resets > resets, "an upload that is reset")
        line.line = LineConditions()
        federation.wait_rounds(federation.done + 1)
