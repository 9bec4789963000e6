"""Laws of sparse training: pruned weights are zero everywhere and never sent, and no other update is lost."""

import random
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message, RecordDict
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import FedAvg, FedXgbBagging

from fedpress.client import compress
from fedpress.client.mod.node_state import ClientState
from fedpress.common.errors import SettingError
from fedpress.compression import Layout
from fedpress.compression.weight_masks import WeightMasks, prunable
from fedpress.extensions.clipping.server import Clipping
from fedpress.extensions.clipping.settings import ClippingSettings
from fedpress.extensions.distillation.server import Distillation
from fedpress.extensions.distillation.settings import DistillationSettings
from fedpress.extensions.personal_layers.server import PersonalLayers
from fedpress.extensions.personal_layers.settings import PersonalLayersSettings
from fedpress.extensions.sparsity.layer_densities import counts
from fedpress.extensions.sparsity.server import Sparsity
from fedpress.extensions.sparsity.settings import SparsitySettings
from fedpress.protocol.arrays import model_record
from fedpress.protocol.messages import RECORD_NAME
from fedpress.server import Compressed
from fedpress.simulations.settings import resolve

from .conftest import DirectGrid, make_app

NODES = 5
UP, DOWN = "ef | topk(0.3) | ans", "topk(0.5) | ans"


def gradual(first_round: int = 2, last_round: int = 8, every: int = 2) -> list[Sparsity]:
    return [Sparsity(SparsitySettings(target=0.8, first_round=first_round, last_round=last_round, every=every))]


def bias_stays() -> PersonalLayers:
    return PersonalLayers(PersonalLayersSettings(tensors=("bias",)))


def fedavg(share: float = 0.67) -> FedAvg:
    return FedAvg(fraction_train=share, fraction_evaluate=0.0, min_train_nodes=3)


def dead(model: dict[str, np.ndarray]) -> np.ndarray:
    return (model["weight"] == 0) & np.signbit(model["weight"])


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(("up", "down"), [(UP, DOWN), ("none", "none"), (UP, "none"), ("none", DOWN)])
def test_pruned_weights_are_zero_on_every_node_and_are_not_sent(
    up: str, down: str, *, shared: bool, make_grid, model
) -> None:
    grid = make_grid(NODES, app=make_app(compress(initial=lambda _: model)) if shared else make_app())
    layout, seen, sizes = Layout.of(model), [], []

    def after(reply: Message) -> bool:
        if not reply.has_error() and reply.content.array_records:
            part = layout.part(reply.content[RECORD_NAME]["tensors"])
            (array,) = next(iter(reply.content.array_records.values())).values()
            masks = WeightMasks.of(seen[-1].model, layout)
            update = grid.decode(up, array.data, masks.unpruned(part))
            if "weight" in update:
                sizes.append(update["weight"].size)
        return True

    grid.after = after
    strategy = Compressed(
        fedavg(),
        up=up,
        down=down,
        key="uniform(8) | ans",
        shared_initial=shared,
        extensions=gradual(),
    ).observe(seen.append)
    strategy.start(grid, model_record(model), num_rounds=10)
    assert [done.failures for done in seen] == [0] * 11
    shares = [dead(done.model).mean() for done in seen]
    assert shares[:2] == [0, 0]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(0.8, abs=0.001)
    assert min(sizes) == round((1 - shares[-1]) * model["weight"].size)
    for done in seen:  # once dead, for ever
        assert (dead(seen[-1].model) | ~dead(done.model)).all()
    assert not dead({"weight": seen[-1].model["bias"]}).any()


def test_no_update_of_an_unpruned_weight_is_lost(make_grid, model, wanted) -> None:
    """Over a run in which messages and replies get lost: what counted plus what is kept is what was wanted."""
    grid = make_grid(NODES)
    dice = random.Random(11)
    grid.before = lambda message: dice.random() > 0.1
    layout, seen = Layout.of(model), []
    counted = {i: np.zeros(layout.size) for i in range(NODES)}

    def after(reply: Message) -> bool:
        if dice.random() < 0.25:
            return False
        if not reply.has_error() and reply.content.array_records:
            (array,) = next(iter(reply.content.array_records.values())).values()
            masks = WeightMasks.of(seen[-1].model, layout)
            update = masks.restore(grid.decode(UP, array.data, masks.unpruned(layout)), layout)
            counted[grid.partition[reply.metadata.src_node_id]] += layout.flatten(update)[0]
        return True

    grid.after = after
    strategy = Compressed(fedavg(), up=UP, down=DOWN, seed=2, extensions=gradual(1, 12, 2)).observe(seen.append)
    strategy.start(grid, model_record(model), num_rounds=25)
    masks = WeightMasks.of(seen[-1].model, layout)
    always = np.concatenate([masks.mask(tensor) for tensor in layout.lossy])  # what dies stays dead
    for partition in range(NODES):
        asked = np.sum(wanted(grid, partition, layout), axis=0, dtype=np.float64)
        memory = ClientState.load(grid.context(partition).state)
        settled = grid.delivered.get(partition) or not memory.sent
        state = memory.after if settled else memory.lost
        kept = np.asarray(state.get("residual", np.zeros(layout.size)), np.float64)
        assert kept.shape == (layout.size,)
        np.testing.assert_allclose((counted[partition] + kept)[always], asked[always], atol=2e-5)
    assert 0.15 < always.mean() < 0.3


def test_a_node_that_missed_several_changes_catches_up(make_grid, model) -> None:
    grid = make_grid(NODES)
    away = grid.context(3).node_id
    seen, orders = [], []

    def before(message: Message) -> bool:
        if message.metadata.dst_node_id == away and message.content[RECORD_NAME]["kind"] == "train":
            orders.append((len(seen), message.content[RECORD_NAME]))
            return len(seen) in (1, 8)  # it is there in the first round, and in the eighth
        return True

    grid.before = before
    strategy = Compressed(
        FedAvg(fraction_train=1.0, fraction_evaluate=0.0),
        up=UP,
        down=DOWN,
        extensions=gradual(2, 6, 1),
    ).observe(seen.append)
    strategy.start(grid, model_record(model), num_rounds=8)
    (order,) = [order for number, order in orders if number == 8]
    assert order["weight_mask_length"] > 0
    assert order["layout"] == ""  # a delta over all changes, and no key frame
    last = [m.content[RECORD_NAME] for m in grid.sent if m.content[RECORD_NAME].get("round") == 8]
    (others,) = {each["weight_mask_length"] for each in last} - {order["weight_mask_length"]}
    assert others == 0  # the others had the mask already, and are told nothing of it
    memory = ClientState.load(grid.context(3).state)
    base = {name: array.numpy() for name, array in memory.base.items()}
    np.testing.assert_array_equal(dead(base), dead(seen[7].model))
    assert memory.version == order["version"]


@pytest.mark.parametrize("name", ["FedAdam", "FedAvgM", "FedMedian", "QFedAvg"])
def test_no_strategy_restores_pruned_weights(name: str, make_grid, floats) -> None:
    arguments = {"FedAvgM": {"server_momentum": 0.9}, "QFedAvg": {"client_learning_rate": 0.1}}.get(name, {})
    inner = getattr(flower, name)(fraction_train=1.0, fraction_evaluate=0.0, **arguments)
    seen = []
    strategy = Compressed(inner, up=UP, down=DOWN, extensions=gradual(1, 3, 1)).observe(seen.append)
    strategy.start(make_grid(NODES), model_record(floats), num_rounds=6)
    np.testing.assert_array_equal(dead(seen[-1].model), dead(seen[3].model))
    assert dead(seen[3].model).mean() == pytest.approx(0.8, abs=0.001)


def test_noise_of_differential_privacy_does_not_restore_pruned_weights(make_grid, floats) -> None:
    inner = flower.DifferentialPrivacyServerSideFixedClipping(fedavg(1.0), 0.5, 1.0, NODES)
    seen = []
    strategy = Compressed(inner, up=UP, down=DOWN, extensions=gradual(1, 2, 1)).observe(seen.append)
    strategy.start(make_grid(NODES), model_record(floats), num_rounds=4)
    np.testing.assert_array_equal(dead(seen[-1].model), dead(seen[2].model))


@pytest.mark.parametrize("clipping_first", [True, False])
def test_clipping_keeps_pruned_weights_pruned_whatever_the_order(clipping_first: bool, make_grid, floats) -> None:
    extensions = [Clipping(ClippingSettings(norm=0.01)), *gradual(1, 3, 1)]
    seen = []
    order = extensions[:: 1 if clipping_first else -1]
    strategy = Compressed(fedavg(), up=UP, down=DOWN, extensions=order).observe(seen.append)
    strategy.start(make_grid(NODES), model_record(floats), num_rounds=5)
    np.testing.assert_array_equal(dead(seen[-1].model), dead(seen[3].model))
    assert dead(seen[3].model).mean() == pytest.approx(0.8, abs=0.001)


def test_layers_keep_shares_by_their_axes() -> None:
    shapes = {"conv": (8, 1, 5, 5), "wide": (110, 256), "head": (10, 110)}
    tensors = prunable(Layout.of({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}))
    total = sum(tensor.size for tensor in tensors)
    for share in (0.1, 0.5, 0.8, 0.9, 0.99):
        live = counts(tensors, share)
        assert sum(live.values()) == pytest.approx((1 - share) * total, abs=len(tensors))
        density = {t.name: live[t.name] / t.size for t in tensors}
        assert min(density["conv"], density["head"]) > density["wide"] > 0
        assert max(density.values()) <= 1
    assert counts(tensors, 0.0) == {t.name: t.size for t in tensors}
    assert min(counts(tensors, 0.99999).values()) >= 1


def test_the_schedule_ends_at_its_last_round() -> None:
    rule = SparsitySettings(target=0.9, first_round=3, last_round=11, every=4)
    assert [number for number in range(1, 20) if rule.prunes_after(number)] == [3, 7, 11]
    shares = [rule.pruned_share(number) for number in (2, 3, 7, 11, 30)]
    assert shares[0] == 0.0
    assert shares == sorted(shares)
    assert shares[3:] == [0.9, 0.9]
    assert shares[2] - shares[1] > shares[3] - shares[2]  # a cubic: fast at first
    assert not any(SparsitySettings().prunes_after(number) for number in range(30))


@pytest.mark.parametrize(
    ("given", "setting"),
    [
        ({"target": 1.0}, "target"),
        ({"target": -0.1}, "target"),
        ({"first_round": 9, "last_round": 3}, "last-round"),
        ({"first_round": 0}, "first-round"),
        ({"every": 0}, "every"),
    ],
)
def test_invalid_settings_are_refused(given: dict[str, float], setting: str) -> None:
    with pytest.raises(SettingError, match=f"^{setting} must be"):
        SparsitySettings(**given)


def test_a_run_shorter_than_its_sparsity_schedule_is_refused() -> None:
    sparse = {"sparsity.target": 0.8, "rounds": 10}
    with pytest.raises(SettingError, match="last-round must be at most rounds"):
        resolve(sparse)
    assert resolve({**sparse, "last-round": 10}).extension(SparsitySettings).active
    assert resolve({"rounds": 10}).extension(SparsitySettings).last_round == 20  # of no meaning in a dense run


def test_conflicting_settings_are_refused() -> None:
    with pytest.raises(SettingError, match="distillation needs that every weight may change"):
        Compressed(fedavg(), extensions=[*gradual(), Distillation(DistillationSettings())])
    with pytest.raises(SettingError, match="no extensions"):
        Compressed(FedXgbBagging(), extensions=gradual())


@pytest.mark.parametrize("crash", [1, 3])
def test_a_federation_goes_on_as_if_nothing_had_been(crash: int, make_grid, model, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def federation(folder: Path, stop: int, *, resume: bool = False) -> Compressed:
        def on_round(done) -> None:
            if done.number == stop + 1:
                raise Stop

        terms = {"up": UP, "down": DOWN, "extensions": [*gradual(1, 4, 1), bias_stays()], "seed": 5}
        return Compressed(fedavg(), **terms, checkpoint=folder, resume=resume).observe(on_round)

    def saved(grid: DirectGrid) -> DirectGrid:
        kept: list[dict[int, RecordDict]] = []
        grid.snapshot = lambda: (
            kept.append({n: RecordDict(dict(c.state)) for n, c in grid.contexts.items()}) or len(kept)
        )
        grid.restore = lambda number: [
            setattr(grid.contexts[n], "state", state) for n, state in kept[number - 1].items()
        ]
        return grid

    grids = [saved(make_grid(NODES)) for _ in range(2)]
    expected = federation(tmp_path / "whole", -9).start(grids[0], model_record(model), num_rounds=6)
    with pytest.raises(Stop):
        federation(tmp_path / "killed", crash).start(grids[1], model_record(model), num_rounds=6)
    result = federation(tmp_path / "killed", -9, resume=True).start(grids[1], model_record(model), num_rounds=6)
    for name in model:
        assert result.arrays[name].numpy().tobytes() == expected.arrays[name].numpy().tobytes()
    terms = {"up": UP, "down": DOWN, "extensions": [bias_stays()], "seed": 5}
    other = Compressed(fedavg(), **terms, checkpoint=tmp_path / "killed", resume=True)
    with pytest.raises(SettingError, match="sparsity"):
        other.start(grids[1], model_record(model), num_rounds=6)
