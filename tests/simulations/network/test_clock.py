"""The simulated clock is held to its closed form; what is late does not arrive."""

from pathlib import Path
from statistics import median

import pytest

from fedpress.common.errors import SettingError
from fedpress.settings.network import DeviceClassSettings
from fedpress.simulations.network.clock import NodeRound, Pace, clock, energy, measure, read_visits
from fedpress.simulations.network.devices import FLEETS, DeviceClass, find_devices
from fedpress.simulations.network.links import LINKS, Link
from fedpress.simulations.run import run
from fedpress.simulations.settings import resolve

LINK = Link("plain", down=8000.0, up=8000.0, latency=0.0, source="made up", payload=10**9, overhead=0)
PACE = Pace(training=0.1, coding=1.0)


def visit(round: int, node: str, nbytes: int, examples: float | None = 10.0) -> NodeRound:
    return NodeRound(round, node, nbytes, 2 * nbytes, examples, 0.0, 0.0)


def test_a_round_takes_as_long_as_its_slowest_node() -> None:
    visits = [visit(1, "0", 1000), visit(1, "1", 3000), visit(2, "0", 500)]
    slow = DeviceClass("slow", slower=2.0)
    took = [spent.seconds for spent in clock(visits, LINK, slow, PACE, seed=0)]
    work = 2.0 * (10 * 0.1 + 1.0)
    assert took == [3 + work + 6, 0.5 + work + 1]


def test_a_deadline_ends_a_round_and_is_waited_for_where_a_reply_is_missing() -> None:
    visits = [visit(1, "0", 1000), visit(2, "0", 9000), visit(3, "0", 1000), visit(3, "1", 1, None)]
    assert [s.seconds for s in clock(visits, LINK, FLEETS["this"], PACE, seed=0, deadline=20.0)] == [5.0, 20.0, 20.0]
    assert [s.seconds for s in clock(visits, LINK, FLEETS["this"], PACE, seed=0)] == [5.0, 29.0, 5.0]


def test_energy_is_of_all_radios_and_of_lost_replies_too() -> None:
    visits = [visit(1, "0", 1000), visit(1, "1", 1000, None)]
    (spent,) = clock(visits, LINKS["3g"], FLEETS["this"], PACE, seed=0)
    each = energy(LINKS["3g"], 1000, 2000)
    assert each is not None
    assert spent.joules == pytest.approx(2 * each)
    assert clock(visits, LINK, FLEETS["this"], PACE, seed=0)[0].joules is None


def test_the_pace_is_a_median_of_replies_that_counted() -> None:
    visits = [NodeRound(1, str(n), 1, 1, 10.0, seconds, seconds / 10) for n, seconds in enumerate((1.0, 2.0, 90.0))]
    assert measure([*visits, NodeRound(1, "9", 1, 0, None, 0.0, 0.0)]) == Pace(0.2, 0.2)


def test_a_fleet_is_as_slow_and_as_flighty_as_it_says() -> None:
    fleet = find_devices(DeviceClassSettings(slower=5.0, spread=0.5, stragglers=0.2, straggling=100.0, dropouts=0.3))
    slowness = [fleet.slowness(str(node), 1) for node in range(2000)]
    assert slowness == [fleet.slowness(str(node), 1) for node in range(2000)]
    stragglers = [times for times in slowness if times > 50]
    assert 0.16 < len(stragglers) / 2000 < 0.24
    assert median(times for times in slowness if times < 50) == pytest.approx(5.0, rel=0.1)
    assert 0.25 < sum(fleet.drops(str(node), 1, 1) for node in range(2000)) / 2000 < 0.35
    with pytest.raises(SettingError, match="unknown devices 'that'"):
        find_devices(DeviceClassSettings("that"))
    for given in ({"devices.speed": 1}, {"slower": "x"}, {"slower": 0.0}, {"dropouts": 1.0}):
        with pytest.raises(SettingError):
            resolve(given)


def test_what_is_late_does_not_arrive_and_the_run_goes_on(tmp_path: Path) -> None:
    """One device in three is a straggler that never makes the deadline; nothing else is lost."""
    given = {"rounds": 4, "clients": 9, "per-round": 9, "out": str(tmp_path / "run"), "workers": 2, "up": "ef | ans"}
    devices = {"stragglers": 0.4, "straggling": 1000.0}
    pace = {"training-pace": 0.001, "coding-pace": 0.001, "deadline": 2.0, "link": "wifi", **devices}
    slow = {str(n) for n in range(9) if find_devices(DeviceClassSettings(**devices)).slowness(str(n), 0) > 1}
    assert 0 < len(slow) < 9
    result = run(resolve({**given, **pace}))
    assert [(row["clients"], row["failures"]) for row in result["rounds"]] == [(9 - len(slow), len(slow))] * 4
    visits = read_visits(tmp_path / "run" / "clients.csv")
    assert {v.node for v in visits if v.examples is None} == slow
    spent = clock(visits, LINKS["wifi"], FLEETS["this"], Pace(0, 0), seed=0, deadline=2.0)
    assert [step.seconds for step in spent] == [2.0] * 4


def test_dropouts_leave_and_come_back(tmp_path: Path) -> None:
    given = {"rounds": 6, "clients": 8, "per-round": 8, "out": str(tmp_path / "run"), "workers": 1}
    result = run(resolve({**given, "dropouts": 0.4}))
    fleet = find_devices(DeviceClassSettings(dropouts=0.4))
    for row in result["rounds"]:
        left = sum(fleet.drops(str(node), row["round"], 0) for node in range(8))
        assert (row["clients"], row["failures"]) == (8 - left, left)


def test_it_is_simulated_in_process_only() -> None:
    with pytest.raises(SettingError, match="engine must be inprocess for deadlines and dropouts"):
        resolve({"engine": "ray", "deadline": 3.0})
