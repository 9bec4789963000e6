"""Laws of groups: who is in which, by share or by what a device says."""

from collections import Counter
from typing import Any

import pytest

from fedpress.common.errors import SettingError
from fedpress.extensions.mixed_fleet.settings import GroupSettings, MixedFleetSettings
from fedpress.simulations.settings import resolve


def fleet(text: str) -> MixedFleetSettings:
    """`1:0.5,0.25:0.5`: widths or models with shares."""
    return MixedFleetSettings(tuple(GroupSettings(**row) for row in tables(text)))


def tables(text: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for part in text.split(","):
        what, _, share = part.partition(":")
        key: dict[str, Any] = {"model": what} if what[0] not in "01" else {"width": float(what)}
        found.append({**key, **({"share": float(share)} if share else {})})
    return found


def test_nodes_are_dealt_out_by_share_and_seed() -> None:
    groups = fleet("1:0.5,0.5:0.2,0.25:0.3")
    dealt = [groups.assign(node, 100, 7).name for node in range(100)]
    assert Counter(dealt) == {"1": 50, "0.5": 20, "0.25": 30}
    assert dealt == [groups.assign(node, 100, 7).name for node in range(100)]
    assert dealt != [groups.assign(node, 100, 8).name for node in range(100)]


@pytest.mark.parametrize(
    ("width", "group"), [("1", "1"), ("0.7", "0.5"), ("0.1", "0.25"), ("", "0.25"), ("0.25", "0.25")]
)
def test_a_device_gets_the_widest_that_it_can_run(width: str, group: str) -> None:
    assert fleet("1,0.5,0.25").choose(width, "").name == group


def test_a_device_runs_one_of_the_run_s_models() -> None:
    groups = fleet("cnn,lenet")
    assert groups.choose("", "lenet").model == "lenet"
    with pytest.raises(SettingError, match="must be one of cnn, lenet, got mlp"):
        groups.choose("", "mlp")
    with pytest.raises(SettingError, match="must be a number, got 'half'"):
        fleet("1,0.5").choose("half", "")


@pytest.mark.parametrize(
    ("groups", "why"),
    [
        ("1:0.5,0.25:0.4", "must add up to 1"),
        ("1:0.5,0.25", "must add up to 1"),
        ("0:0.5,1:0.5", "width must be above 0 and at most 1, got 0"),
        ("1:0.5,1.0:0.5", "different names"),
        ("1:0.5,lenet:0.5", "all in width or all in model"),
        ("1,0.25", "share must be above 0 for groups of virtual nodes"),
        ("..:0.5,cnn:0.5", "with no dot first, got '..'"),
        ("cnn/a:0.5,cnn:0.5", "letters, digits and . _ -, .* got 'cnn/a'"),
    ],
)
def test_groups_that_cannot_be_are_refused_in_a_line(groups: str, why: str) -> None:
    with pytest.raises(SettingError, match=why) as caught:
        resolve({"workload": "fashion", "groups": tables(groups)})
    assert "\n" not in str(caught.value)


def test_the_run_s_model_is_the_first_group_s() -> None:
    given = {"workload": "fashion", "groups": tables("lenet:0.5,cnn:0.5")}
    assert resolve(given).simulation.model == "lenet"
    assert resolve({**given, "model": "lenet"}) == resolve(given)
    with pytest.raises(SettingError, match="model must be that of the first group, 'lenet', got 'cnn'"):
        resolve({**given, "model": "cnn"})


WIDTHS = {"groups": tables("1:0.5,0.25:0.5")}


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({**WIDTHS, "slices": "importance"}, "stateless must be true"),
        ({**WIDTHS, "slices": "importance", "shared-initial": False}, "stateless must be true"),
        ({**WIDTHS, "slices": "spiral"}, "spiral"),
        ({"slices": "importance"}, "without groups of widths"),
        ({**WIDTHS, "scale": 2.0}, "scale must be at least 0"),
    ],
)
def test_what_does_not_go_together_is_refused_before_the_run(settings: dict[str, object], why: str) -> None:
    with pytest.raises(SettingError, match=why):
        resolve(settings)
