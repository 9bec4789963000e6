"""Laws of nodes that say what they run: who takes part, and with which model."""

import time
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg, FedMedian

from fedpress.common.errors import FedpressError, SettingError
from fedpress.compression.submodels import Slice
from fedpress.extensions.mixed_fleet.node_groups import NodeGroups
from fedpress.extensions.mixed_fleet.server import MixedFleet
from fedpress.extensions.mixed_fleet.settings import GroupSettings, MixedFleetSettings
from fedpress.protocol.arrays import model_record
from fedpress.server import Compressed


class Rows(NodeGroups):
    """The narrow group has the first half of the weight's rows, and no bias."""

    shown, disjoint = "1", False

    def __init__(self, settings: MixedFleetSettings, whole: dict[str, np.ndarray]) -> None:
        super().__init__(settings, 0, 0, lambda name: None)
        self.whole = whole

    def places(self, round: int, model: Any) -> dict[str, Slice]:
        everything = Slice({name: name for name in model}, {})
        return {"1": everything, "0.5": Slice({"weight": "weight"}, {"weight": (np.arange(20),)})}


def two_sizes(model: dict[str, np.ndarray]) -> list[MixedFleet]:
    settings = MixedFleetSettings(groups=(GroupSettings(width=1.0), GroupSettings(width=0.5)))
    return [MixedFleet(settings, Rows(settings, model), lambda name, model: {})]


def federate(grid, model, sizes: dict[int, Any], rounds: int = 3) -> tuple[Compressed, dict[str, np.ndarray]]:
    for partition, size in sizes.items():
        grid.context(partition).node_config["width"] = size
    nodes = {"min_train_nodes": 2, "min_available_nodes": 2}
    inner = FedAvg(fraction_train=1.0, fraction_evaluate=0.0, **nodes)
    done: list[Any] = []
    strategy = Compressed(inner, up="none", down="none", extensions=two_sizes(model)).observe(done.append)
    result = strategy.start(grid, model_record(model), num_rounds=rounds)
    strategy.done = done  # type: ignore[attr-defined]
    return strategy, {name: array.numpy() for name, array in result.arrays.items()}


def test_each_node_trains_its_part_and_only_that_changes(make_grid, model) -> None:
    grid = make_grid(4)
    _, after = federate(grid, model, {0: 0.5, 1: 0.5, 2: 0.7, 3: 0.5})
    assert (after["weight"][20:] == model["weight"][20:]).all()
    assert (after["bias"] == model["bias"]).all()
    assert (after["weight"][:20] != model["weight"][:20]).all()


def test_what_each_element_becomes_is_the_mean_of_those_that_have_it(make_grid, model) -> None:
    grid = make_grid(3)
    strategy, after = federate(grid, model, {0: 1.0, 1: 0.5, 2: 0.5}, rounds=1)
    (last,) = [done for done in strategy.done if done.number == 1]  # type: ignore[attr-defined]
    assert set(last.counted) == {"0", "1", "2"}
    steps = {}
    for partition in range(3):
        wanted = grid.context(partition).state["wanted"]
        steps[partition] = {key.split(":")[2]: array.numpy() for key, array in wanted.items()}
    weights = {0: 10, 1: 20, 2: 30}
    both = sum(steps[p]["weight"][:20] * weights[p] for p in weights) / 60
    np.testing.assert_allclose(after["weight"][:20], model["weight"][:20] + both, atol=1e-6)
    np.testing.assert_allclose(after["weight"][20:], model["weight"][20:] + steps[0]["weight"][20:], atol=1e-6)
    np.testing.assert_allclose(after["bias"], model["bias"] + steps[0]["bias"], atol=1e-6)


def test_a_node_whose_size_is_no_number_is_left_out(make_grid, model, caplog: pytest.LogCaptureFixture) -> None:
    strategy, _ = federate(make_grid(3), model, {0: 1.0, 1: "large", 2: 0.5})
    assert "node 1 is left out: a device's width must be a number, got 'large'" in caplog.text
    assert all(set(done.counted) == {"0", "2"} for done in strategy.done[1:])  # type: ignore[attr-defined]
    asked = [entry for entry in strategy.ledger if entry.purpose == "ask"]
    assert len([entry for entry in asked if entry.direction == "down"]) == 3  # once each, and no more


@pytest.mark.parametrize("sizes", [{0: 1.0, 1: "large"}, {0: "small", 1: "large"}])
@pytest.mark.parametrize("bound", [False, True])
def test_a_run_that_too_few_devices_can_join_ends_and_says_which_cannot(sizes, bound: bool, make_grid, model) -> None:
    grid = make_grid(2)
    if bound:
        grid.names = lambda: {node: str(partition) for node, partition in grid.partition.items()}
    with pytest.raises(
        FedpressError, match=r"needs 2 nodes, .* node 1: a device's width must be a number, got 'large'$"
    ):
        federate(grid, model, sizes)


@pytest.mark.parametrize("bound", [False, True])
@pytest.mark.parametrize("fault", ["width", "app", "silent"])
def test_a_device_that_cannot_take_part_ends_no_run_that_others_can_join(
    fault: str, bound: bool, make_grid, model, monkeypatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nodes 0 and 1 are connected from the start, node 2 later; node 1 is left out, with one warning."""
    grid = make_grid(3)
    grid.most_nodes = lambda: None
    late = {grid.partition[node]: node for node in grid.partition}[2]
    present = set(grid.partition) - {late}
    monkeypatch.setattr(grid, "get_node_ids", lambda: sorted(present))
    monkeypatch.setattr("flwr.serverapp.strategy.strategy_utils.sleep", lambda _: present.add(late))
    if bound:
        grid.names = lambda: {node: str(partition) for node, partition in grid.partition.items()}
    app, other = grid.app, ClientApp()

    @other.train()
    def train(message: Message, context: Context) -> Message:
        raise KeyError("arrays")

    grid.app = lambda m, context: (other if fault == "app" and not int(context.node_config["width"]) else app)(
        m, context
    )
    grid.before = lambda m: fault != "silent" or bool(grid.contexts[m.metadata.dst_node_id].node_config["width"])
    strategy, _ = federate(grid, model, {0: 1.0, 1: "large" if fault == "width" else 0, 2: 1.0})
    assert [set(done.counted) for done in strategy.done[1:]] == [{"0", "2"}] * 3  # type: ignore[attr-defined]
    name = "1" if bound or fault == "width" else str(next(n for n, p in grid.partition.items() if p == 1))
    assert sum(f"node {name} " in record.getMessage() for record in caplog.records) == 1


def test_an_app_without_compress_ends_no_run_that_others_can_join(make_grid, model, monkeypatch, caplog) -> None:
    """A device whose app is another is alone at first: rounds are abandoned until one comes that can train."""
    grid = make_grid(2)
    grid.most_nodes = lambda: None
    grid.names = lambda: {node: str(partition) for node, partition in grid.partition.items()}
    nodes = {partition: node for node, partition in grid.partition.items()}
    present = {nodes[0]}
    monkeypatch.setattr(grid, "get_node_ids", lambda: sorted(present))
    monkeypatch.setattr(time, "sleep", lambda _: present.add(nodes[1]))
    app, other = grid.app, ClientApp()

    @other.train()
    def train(message: Message, context: Context) -> Message:
        return Message(RecordDict({"metrics": MetricRecord({"num-examples": 1})}), reply_to=message)

    grid.app = lambda message, context: (other if context.node_id == nodes[0] else app)(message, context)
    done: list[Any] = []
    inner = FedAvg(fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)
    Compressed(inner).observe(done.append).start(grid, model_record(model), num_rounds=2)
    assert [set(one.counted) for one in done[1:]] == [{"1"}] * 2
    assert "node 0: its app has no compress()" in caplog.text


@pytest.mark.parametrize("bound", [False, True])
def test_a_device_that_comes_back_with_another_width_goes_on(bound: bool, make_grid, model) -> None:
    grid = make_grid(2)
    for node in grid.contexts.values():
        node.node_config["width"] = 1.0
    if bound:
        grid.names = lambda: {node: str(partition) for node, partition in grid.partition.items()}  # bound to its key
    counted: list[set[str]] = []

    def done(round: Any) -> None:
        counted.append(set(round.counted))
        if round.number == 2:
            (old,) = (node for node, partition in grid.partition.items() if partition == 0)
            grid.contexts[1] = grid.contexts.pop(old)
            grid.contexts[1].node_config["width"] = 0.5
            grid.partition[1] = grid.partition.pop(old)

    inner = FedAvg(fraction_train=1.0, fraction_evaluate=0.0)
    strategy = Compressed(
        inner, up="ef | topk(0.1) | ans", down="topk(0.1) | ans", extensions=two_sizes(model)
    ).observe(done)
    strategy.start(grid, model_record(model), num_rounds=4)
    assert counted[1:] == [{"0", "1"}] * 4


def test_strategies_that_look_at_whole_models_are_refused_before_the_run() -> None:
    extensions = two_sizes({"weight": np.zeros((40, 30), np.float32)})
    with pytest.raises(SettingError, match=r"^strategy must be .*FedMedian"):
        Compressed(FedMedian(), extensions=extensions)
