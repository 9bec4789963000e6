"""Laws of groups: who is in which, by share or by what a device says."""

from collections import Counter

import pytest

from fedpress.common.errors import SettingError
from fedpress.extensions.mixed_fleet.settings import MixedFleetSettings
from fedpress.simulations.settings import resolve


def test_nodes_are_dealt_out_by_share_and_seed() -> None:
    groups = MixedFleetSettings("1:0.5,0.5:0.2,0.25:0.3")
    dealt = [groups.deal(node, 100, 7).name for node in range(100)]
    assert Counter(dealt) == {"1": 50, "0.5": 20, "0.25": 30}
    assert dealt == [groups.deal(node, 100, 7).name for node in range(100)]
    assert dealt != [groups.deal(node, 100, 8).name for node in range(100)]


@pytest.mark.parametrize(
    ("width", "group"), [("1", "1"), ("0.7", "0.5"), ("0.1", "0.25"), ("", "0.25"), ("0.25", "0.25")]
)
def test_a_device_gets_the_widest_that_it_can_run(width: str, group: str) -> None:
    assert MixedFleetSettings("1,0.5,0.25").choose(width, "").name == group


def test_a_device_runs_one_of_the_run_s_models() -> None:
    groups = MixedFleetSettings("cnn,lenet")
    assert groups.choose("", "lenet").model == "lenet"
    with pytest.raises(SettingError, match="one of the run's, cnn, lenet; got mlp"):
        groups.choose("", "mlp")
    with pytest.raises(SettingError, match="must be a number, got 'half'"):
        MixedFleetSettings("1,0.5").choose("half", "")


@pytest.mark.parametrize(
    ("groups", "why"),
    [
        ("1:0.5,0.25:0.4", "add up to 1"),
        ("1:0.5,0.25", "add up to 1"),
        ("1:half,0.25:0.5", "pairs such as"),
        ("1:0,0.25:1", "shares in"),
        ("0:0.5,1:0.5", "in \\(0, 1\\], got 0"),
        ("1:0.5,1.0:0.5", "named once"),
        ("1:0.5,lenet:0.5", "in width or in model"),
        ("1,0.25", "dealt out by shares"),
        ("cnn:0.5,vgg:0.5", "vgg"),
        ("..:0.5,cnn:0.5", "with no dot first; got '..'"),
        ("cnn/a:0.5,cnn:0.5", "letters, digits and . _ -, .* got 'cnn/a'"),
        ("cnn\\\\a:0.5,cnn:0.5", "letters, digits and"),
    ],
)
def test_groups_that_cannot_be_are_refused_in_a_line(groups: str, why: str) -> None:
    with pytest.raises(SettingError, match=why) as caught:
        resolve({"workload": "fashion", "groups": groups})
    assert "\n" not in str(caught.value)


def test_the_run_s_model_is_the_first_group_s() -> None:
    given = {"workload": "fashion", "groups": "lenet:0.5,cnn:0.5"}
    assert resolve(given)["model"] == "lenet"
    assert resolve({**given, "model": "lenet"}) == resolve(given)
    with pytest.raises(SettingError, match="that of the first group, 'lenet': got model 'cnn'"):
        resolve({**given, "model": "cnn"})


WIDTHS = {"groups": "1:0.5,0.25:0.5"}


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({**WIDTHS, "strategy": "FedMedian"}, "are averaged by FedAvg.*, got FedMedian"),
        ({**WIDTHS, "slices": "importance"}, "stateless true and shared-initial false"),
        ({**WIDTHS, "slices": "importance", "shared-initial": False}, "stateless true and shared-initial false"),
        ({**WIDTHS, "slices": "spiral"}, "spiral"),
        ({"slices": "importance"}, "needs groups of widths"),
        ({**WIDTHS, "scale": 2.0}, "scale is in"),
        ({**WIDTHS, "workload": "speeches"}, "CharacterGRU cannot be narrowed: embedding is a Embedding"),
    ],
)
def test_what_does_not_go_together_is_refused_before_the_run(settings: dict[str, object], why: str) -> None:
    with pytest.raises(SettingError, match=why):
        resolve(settings)
