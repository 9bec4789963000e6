"""Laws of personal layers: their training is kept on the device, and is never sent."""

import random
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message, RecordDict
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import FedAvg, FedXgbBagging
from torch import nn

from fedpress.client import compress
from fedpress.client.mod.node_state import ClientState
from fedpress.common.errors import SettingError
from fedpress.compression import FrameError, Layout, UpdateError, parse
from fedpress.extensions.distillation.server import Distillation
from fedpress.extensions.distillation.settings import DistillationSettings
from fedpress.extensions.personal_layers import client as personal_layers
from fedpress.extensions.personal_layers.model_split import ModelSplit
from fedpress.extensions.personal_layers.server import PersonalLayers
from fedpress.extensions.personal_layers.settings import PersonalLayersSettings
from fedpress.extensions.personal_layers.tensor_patterns import match_tensors
from fedpress.protocol.arrays import model_record
from fedpress.protocol.messages import RECORD_NAME, extension_record
from fedpress.server import Compressed
from fedpress.simulations.workloads.models import CharacterGRU, cnnbn, mlp, resnet18

from .conftest import DirectGrid, make_app

NODES = 5
LOSSY, DOWN = "ef | topk(0.1) | ans", "topk(0.2) | ans"
OWN = ("bias", "steps")
PERSONAL = extension_record("personal_layers")


def fedavg(share: float = 0.67) -> FedAvg:
    return FedAvg(fraction_train=share, fraction_evaluate=0.0, min_train_nodes=3)


def names(model: nn.Module, *patterns: str) -> set[str]:
    return match_tensors(Layout.of({name: t.numpy() for name, t in model.state_dict().items()}), patterns)


def own(grid: DirectGrid, partition: int) -> dict[str, np.ndarray]:
    record = ClientState.load(grid.context(partition).state).extensions.get("personal_layers")
    return {name: array.numpy() for name, array in record.items()} if record else {}


def test_words_mean_layers() -> None:
    assert names(mlp(0.0), "head") == {"4.weight", "4.bias"}
    assert names(CharacterGRU(30, 0.0), "head") == {"output.weight", "output.bias"}
    assert names(mlp(0.0), "1.*", "4.bias") == {"1.weight", "1.bias", "4.bias"}
    batch = {f"{layer}.{part}" for layer in (1, 5) for part in ("weight", "bias", "running_mean", "running_var")}
    assert names(cnnbn(0.0), "norm") == batch | {"1.num_batches_tracked", "5.num_batches_tracked"}
    others = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.GroupNorm(2, 8), nn.BatchNorm2d(8, affine=False), nn.Linear(8, 8), nn.LayerNorm(8)
    )
    assert {name[0] for name in names(others, "norm")} == {"1", "2", "4"}
    deep = resnet18(0.0)
    kept = {f"{name}." for name, m in deep.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert names(deep, "norm") == {name for name in deep.state_dict() if name[: name.rindex(".") + 1] in kept}


def test_a_parametrised_layer_is_one_layer() -> None:
    parts = {"bias", "parametrizations.weight.original0", "parametrizations.weight.original1"}
    model = nn.Sequential(nn.Linear(4, 3), nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)))
    assert names(model, "head") == {f"1.{part}" for part in parts}


@pytest.mark.parametrize("patterns", [("haed",), ("norm",), ("*",), ("head", "conv*")])
def test_patterns_that_mean_nothing_or_all_are_refused(patterns: tuple[str, ...]) -> None:
    with pytest.raises(SettingError, match="tensors must"):
        names(mlp(0.0), *patterns)


def stays(*patterns: str) -> list[PersonalLayers]:
    return [PersonalLayers(PersonalLayersSettings(tensors=patterns))]


def test_conflicting_settings_are_refused() -> None:
    with pytest.raises(SettingError, match="personal_layers needs that nodes keep state"):
        Compressed(fedavg(), extensions=stays("head"), stateless=True)
    with pytest.raises(SettingError, match="personal_layers prevents"):
        Compressed(fedavg(), extensions=[*stays("head"), Distillation(DistillationSettings())])
    with pytest.raises(SettingError, match="no extensions"):
        Compressed(FedXgbBagging(), extensions=stays("head"))


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("down", ["none", DOWN])
def test_they_stay_on_the_node_and_lose_nothing(down: str, *, shared: bool, make_grid, model, wanted) -> None:
    """Over a run in which messages and replies get lost: a node's own are the first ones plus all that it trained."""
    app = make_app(compress(initial=lambda _: model)) if shared else make_app()
    grid = make_grid(NODES, app=app)
    dice = random.Random(4)
    grid.before = lambda message: dice.random() > 0.1
    grid.after = lambda reply: dice.random() > 0.25
    inner = fedavg()
    strategy = Compressed(
        inner, up=LOSSY, down=down, key="uniform(8) | ans", extensions=stays(*OWN), shared_initial=shared
    )
    result = strategy.start(grid, model_record(model), num_rounds=12)
    assert [*result.arrays] == [*model]
    for name in OWN:  # the server never learns of them
        np.testing.assert_array_equal(result.arrays[name].numpy(), model[name])
    assert not np.array_equal(result.arrays["weight"].numpy(), model["weight"])
    for partition in range(NODES):
        turns = {
            key.split(":")[0]: array.numpy()
            for key, array in grid.context(partition).state["wanted"].items()
            if key.endswith(":bias")
        }
        expected = model["bias"]
        for step in turns.values():
            expected = expected + step
        np.testing.assert_allclose(own(grid, partition)["bias"], expected, atol=1e-5)
        assert own(grid, partition)["steps"] == model["steps"] + len(turns)


def test_none_of_them_travels_but_once(make_grid, model) -> None:
    grid = make_grid(NODES)
    shared = Layout.of({name: array for name, array in model.items() if name not in OWN})
    seen_up: list[Layout] = []

    def after(reply: Message) -> bool:
        if not reply.has_error() and reply.content.array_records:
            (array,) = next(iter(reply.content.array_records.values())).values()
            seen_up.append(shared.part(reply.content[RECORD_NAME]["tensors"]))
            grid.decode(LOSSY, array.data, seen_up[-1])
        return True

    grid.after = after
    strategy = Compressed(fedavg(1.0), up=LOSSY, down="none", extensions=stays(*OWN))
    strategy.start(grid, model_record(model), num_rounds=4)
    first = ModelSplit.of(model, OWN).frame
    for node in grid.contexts:
        orders = [m for m in grid.sent if m.metadata.dst_node_id == node and m.content[RECORD_NAME]["kind"] == "train"]
        lengths = [len(message.content[PERSONAL]["frame"]) for message in orders]
        assert lengths == [len(first)] + [0] * (len(orders) - 1)
        for message in orders:
            order = message.content[RECORD_NAME]
            (array,) = next(iter(message.content.array_records.values())).values()
            assert len(array.data) == sum(order["frame_lengths"])
            for length, spec, mask in zip(
                order["frame_lengths"], order["frame_specs"], order["frame_tensors"], strict=True
            ):
                assert {t.name for t in shared.part(mask).tensors} <= model.keys() - set(OWN)
                parse(spec).decode(array.data[:length], shared.part(mask))
    assert seen_up
    assert all(not set(OWN) & {t.name for t in layout.tensors} for layout in seen_up)


def test_what_is_shared_is_learned_as_without_them(make_grid, model) -> None:
    """Nodes of this app train each tensor for itself, so the shared part comes out with the same bits."""
    rest = {name: array for name, array in model.items() if name not in OWN}
    models = []
    for initial, patterns in ((model, OWN), (rest, ())):
        # The app's noise is drawn tensor by tensor: shared tensors stand first.
        ordered = {name: initial[name] for name in ("weight", "scale", "bias", "steps") if name in initial}
        grid = make_grid(NODES)
        strategy = Compressed(fedavg(), up=LOSSY, down=DOWN, extensions=stays(*patterns), seed=2)
        models.append(strategy.start(grid, model_record(ordered), num_rounds=4).arrays)
    for name in rest:
        np.testing.assert_array_equal(models[0][name].numpy(), models[1][name].numpy())


@pytest.mark.parametrize("shared", [False, True])
def test_a_node_that_lost_its_state_begins_anew(make_grid, model, *, shared: bool) -> None:
    app = make_app(compress(initial=lambda _: model)) if shared else make_app()
    grid = make_grid(NODES, app=app)
    seen = []

    def forget(done) -> None:
        seen.append(done)
        if done.number == 2:
            grid.context(1).state = RecordDict()

    inner = fedavg(1.0)
    Compressed(inner, up=LOSSY, down=DOWN, extensions=stays(*OWN), shared_initial=shared).observe(forget).start(
        grid, model_record(model), num_rounds=4
    )
    assert [done.failures for done in seen] == [0] * 5
    assert [len(done.counted) for done in seen[1:]] == [NODES] * 4
    assert own(grid, 1)["steps"] == model["steps"] + 2
    assert own(grid, 0)["steps"] == model["steps"] + 4


def test_an_initial_model_that_is_not_the_server_s_is_replaced(make_grid, model) -> None:
    other = {f"{number}": np.ones(3, np.float32) for number in range(9)}
    grid = make_grid(NODES, app=make_app(compress(initial=lambda _: other)))
    seen = []
    strategy = Compressed(fedavg(1.0), up=LOSSY, down=DOWN, extensions=stays(*OWN), shared_initial=True).observe(
        seen.append
    )
    strategy.start(grid, model_record(model), num_rounds=2)
    assert [len(done.counted) for done in seen[1:]] == [NODES] * 2
    assert own(grid, 0)["steps"] == model["steps"] + 2


def test_personal_values_alone_lost_are_asked_for(make_grid, model) -> None:
    grid = make_grid(NODES)

    def forget(done) -> None:
        if done.number == 1:
            del grid.context(2).state[PERSONAL]

    strategy = Compressed(fedavg(1.0), up=LOSSY, down=DOWN, extensions=stays(*OWN)).observe(forget)
    strategy.start(grid, model_record(model), num_rounds=3)
    assert own(grid, 2)["steps"] == model["steps"] + 2


@pytest.mark.parametrize("name", ["ServerSideFixedClipping", "ServerSideAdaptiveClipping"])
def test_privacy_s_noise_is_added_to_what_is_shared_alone(name: str, make_grid, floats) -> None:
    norm = {"clipping_norm": 0.5} if "Fixed" in name else {"initial_clipping_norm": 0.5}
    make = getattr(flower, f"DifferentialPrivacy{name}")
    inner = make(fedavg(1.0), noise_multiplier=0.4, num_sampled_clients=NODES, **norm)
    grid = make_grid(NODES)
    result = Compressed(inner, up=LOSSY, down=DOWN, extensions=stays("bias")).start(
        grid, model_record(floats), num_rounds=2
    )
    np.testing.assert_array_equal(result.arrays["bias"].numpy(), floats["bias"])
    assert not np.array_equal(result.arrays["weight"].numpy(), floats["weight"])
    assert not np.array_equal(own(grid, 0)["bias"], floats["bias"])


@pytest.mark.parametrize("crash", [0, 2])
def test_a_federation_goes_on_as_if_nothing_had_been(crash: int, make_grid, model, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def federation(folder: Path, stop: int, *, resume: bool = False) -> Compressed:
        def on_round(done) -> None:
            if done.number == stop + 1:
                raise Stop

        terms = {"up": LOSSY, "down": DOWN, "extensions": stays(*OWN), "seed": 5}
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
    expected = federation(tmp_path / "whole", -9).start(grids[0], model_record(model), num_rounds=5)
    with pytest.raises(Stop):
        federation(tmp_path / "killed", crash).start(grids[1], model_record(model), num_rounds=5)
    result = federation(tmp_path / "killed", -9, resume=True).start(grids[1], model_record(model), num_rounds=5)
    for name in model:
        np.testing.assert_array_equal(result.arrays[name].numpy(), expected.arrays[name].numpy())
        for partition in range(NODES):
            mine, theirs = own(grids[1], partition), own(grids[0], partition)
            np.testing.assert_equal(mine, theirs)


def test_what_training_spoils_is_not_kept() -> None:
    before = Layout.of({"bias": np.zeros(3, np.float32)})
    for spoilt in ({"bias": np.full(3, np.nan, np.float32)}, {"bias": np.zeros(4, np.float32)}, {}):
        with pytest.raises(UpdateError):
            personal_layers.check(spoilt, before)
    shared, mine = personal_layers.split({"a": 1, "b": 2, "c": 3}, b"\x02")
    assert (shared, mine) == ({"a": 1, "c": 3}, {"b": 2})
    assert list(personal_layers.join(shared, mine, b"\x02")) == ["a", "b", "c"]
    for mask, parts in ((b"\x06", (shared, mine)), (b"\x02\x00", (shared, mine)), (b"\x0a", (shared, mine))):
        with pytest.raises(FrameError):
            personal_layers.join(*parts, mask)


def test_frames_of_personal_tensors_are_exact() -> None:
    initial = {name: tensor.numpy() for name, tensor in cnnbn(0.0).state_dict().items()}
    parts = ModelSplit.of(initial, ("norm", "head"))
    back = parse("none").decode(parts.frame, parts.layout)
    assert {name: array.tobytes() for name, array in back.items()} == {n: a.tobytes() for n, a in parts.own.items()}
    assert list(parts.whole(parts.shared(initial))) == list(initial)
