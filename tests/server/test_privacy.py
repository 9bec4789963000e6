"""flwr's differential privacy inside Compressed: the same sums, the same bound, and noise that no seed tells."""

from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import Message
from flwr.clientapp.mod import LocalDpMod, adaptiveclipping_mod, fixedclipping_mod
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import FedAvg, Strategy
from flwr.supercore.privacy_accounting import (
    GaussianPrivacyEvent,
    NeighboringRelation,
    PrivacyConfig,
    PrivacySpent,
    SamplingMethod,
)

from fedpress.client import compress
from fedpress.compression import Layout, SettingError
from fedpress.protocol.arrays import model_record
from fedpress.protocol.messages import RECORD_NAME
from fedpress.server import Compressed

from .conftest import PLAIN, make_app

NODES = 4
FIXED, ADAPTIVE = {"clipping_norm": 0.5}, {"initial_clipping_norm": 0.5}
WRAPPERS: dict[str, tuple[dict[str, float], Callable[..., Message] | None]] = {
    "ServerSideFixedClipping": (FIXED, None),
    "ServerSideAdaptiveClipping": (ADAPTIVE, None),
    "ClientSideFixedClipping": (FIXED, fixedclipping_mod),
    "ClientSideAdaptiveClipping": (ADAPTIVE, adaptiveclipping_mod),
}


def private(name: str, noise: float = 0.0) -> Strategy:
    inner = FedAvg(fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=NODES)
    make = getattr(flower, f"DifferentialPrivacy{name}")
    return make(inner, noise_multiplier=noise, num_sampled_clients=NODES, **WRAPPERS[name][0])


def app_of(name: str):
    mod = WRAPPERS[name][1]
    return make_app(mods=[compress(), *([mod] if mod else [])])


def final(result) -> dict[str, np.ndarray]:
    return {name: array.numpy() for name, array in result.arrays.items()}


@pytest.mark.parametrize("name", WRAPPERS)
def test_with_none_both_ways_and_no_noise_every_wrapper_is_itself(name: str, make_grid, floats) -> None:
    grid = make_grid(NODES, app=app_of(name))
    wrapped = Compressed(private(name), **PLAIN).start(grid, model_record(floats), num_rounds=3)
    plain = make_grid(NODES, app=app_of(name), ordered=True)

    def weigh_equally(reply: Message) -> bool:  # as all replies do inside Compressed
        reply.content["metrics"]["num-examples"] = 1
        return True

    plain.after = weigh_equally
    bare = private(name).start(plain, model_record(floats), num_rounds=3)
    for tensor, array in final(wrapped).items():
        np.testing.assert_allclose(array, final(bare)[tensor], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", WRAPPERS)
def test_every_wrapper_runs_compressed_and_moves_no_further_than_its_bound(name: str, make_grid, model) -> None:
    seen = []
    up = "lowrank(nmse=0.3) | ans" if name.startswith("Client") else "ef | lowrank(nmse=0.3) | ans"
    strategy = Compressed(private(name), up=up, down="lowrank(nmse=0.1) | ans").observe(seen.append)
    strategy.start(make_grid(NODES, app=app_of(name)), model_record(model), num_rounds=3)
    assert [(len(done.counted), done.failures) for done in seen[1:]] == [(NODES, 0)] * 3
    if "Fixed" in name:
        floats = [t.name for t in Layout.of(model).lossy]
        moved = np.sqrt(sum(np.square(seen[3].model[k] - seen[0].model[k]).sum() for k in floats))
        assert 0 < moved <= 3 * 0.5 * 1.2


def test_noise_does_not_follow_from_the_seed(make_grid, floats) -> None:
    asked, models = [], []
    for _ in range(2):
        grid = make_grid(NODES, app=app_of("ServerSideFixedClipping"))
        result = Compressed(private("ServerSideFixedClipping", noise=1.0), **PLAIN, seed=7).start(
            grid, model_record(floats), num_rounds=2
        )
        models.append(final(result))
        asked.append(
            [grid.partition[m.metadata.dst_node_id] for m in grid.sent if m.content[RECORD_NAME]["kind"] == "train"]
        )
    assert asked[0] == asked[1]
    assert not np.array_equal(models[0]["weight"], models[1]["weight"])


def test_local_noise_goes_through(make_grid, floats) -> None:
    noisy = LocalDpMod(clipping_norm=1.0, sensitivity=0.1, epsilon=1.0, delta=0.1)
    grid = make_grid(NODES, app=make_app(mods=[compress(), noisy]))
    seen = []
    inner = FedAvg(fraction_train=1.0, fraction_evaluate=0.0)
    Compressed(inner, up="lowrank(nmse=0.3) | ans", down="none").observe(seen.append).start(
        grid, model_record(floats), num_rounds=2
    )
    assert [(len(done.counted), done.failures) for done in seen[1:]] == [(NODES, 0)] * 2


def test_one_failed_node_does_not_cost_the_round(make_grid, floats) -> None:
    """On one error among its replies a wrapper would skip the round: it gets to see none."""
    grid = make_grid(NODES + 1)

    def spoil(reply: Message) -> bool:
        if not reply.has_error() and grid.partition[reply.metadata.src_node_id] == 2 and reply.content.array_records:
            reply.content["metrics"]["num-examples"] = -1
        return True

    grid.after = spoil
    seen = []
    Compressed(private("ServerSideFixedClipping"), **PLAIN).observe(seen.append).start(
        grid, model_record(floats), num_rounds=1
    )
    assert (len(seen[1].counted), seen[1].failures) == (NODES, 1)
    assert not np.array_equal(seen[0].model["weight"], seen[1].model["weight"])


@pytest.mark.parametrize("name", ["ClientSideFixedClipping", "ClientSideAdaptiveClipping"])
def test_memory_after_clipping_is_refused(name: str) -> None:
    with pytest.raises(SettingError, match="clips before compression"):
        Compressed(private(name), up="ef | topk(0.1) | ans")
    Compressed(private(name), up="topk(0.1) | ans")


def test_only_the_outermost_strategy_runs(make_grid, floats) -> None:
    inner = Compressed(FedAvg(fraction_train=1.0, fraction_evaluate=0.0))
    outer = flower.DifferentialPrivacyServerSideFixedClipping(inner, 0.0, 1.0, NODES)
    with pytest.raises(SettingError, match="must be the outermost strategy"):
        outer.start(make_grid(NODES), model_record(floats), num_rounds=1)


def large() -> dict[str, np.ndarray]:
    """A model of so many values that the noise of one round can be measured."""
    return {"weight": np.zeros((200, 200), np.float32)}


@pytest.mark.parametrize("name", WRAPPERS)
@pytest.mark.parametrize("fail", [0, 1, 3])
def test_noise_is_what_one_node_can_move_whoever_replies(name: str, fail: int, make_grid) -> None:
    grid = make_grid(NODES, app=app_of(name))
    grid.after = lambda r: "metrics" not in r.content or grid.partition[r.metadata.src_node_id] >= fail
    seen = []
    inner = FedAvg(fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=NODES)
    arguments = {**WRAPPERS[name][0], "noise_multiplier": 2.0, "num_sampled_clients": NODES}
    if "Adaptive" in name:
        arguments |= {"clipped_count_stddev": 1e3, "clip_norm_lr": 1e-9}  # the norm stays as it is
    strategy = Compressed(getattr(flower, f"DifferentialPrivacy{name}")(inner, **arguments), **PLAIN)
    strategy.observe(seen.append).start(grid, model_record(large()), num_rounds=1)
    assert len(seen[1].counted) == NODES - fail
    one_node = 0.5 / (NODES - fail)
    assert seen[1].model["weight"].std() == pytest.approx(2.0 * one_node, rel=0.05)


def test_a_claim_moves_nothing_under_privacy(make_grid, floats) -> None:
    """One node of four moves the mean by a quarter of the bound, whatever it says that it weighs."""
    grid, seen = make_grid(NODES), []

    def after(reply: Message) -> bool:
        if "metrics" in reply.content and grid.partition[reply.metadata.src_node_id] == 1:
            reply.content["metrics"]["num-examples"] = 10**9
        return True

    grid.after = after
    Compressed(private("ServerSideFixedClipping"), **PLAIN).observe(seen.append).start(
        grid, model_record(floats), num_rounds=1
    )
    assert {counted.weight for counted in seen[1].counted.values()} == {1.0}


class Accountant:
    """Counts releases, as the one of flwr[dp] does; its state is its own."""

    config = PrivacyConfig(1e-5, NODES, NeighboringRelation.ADD_OR_REMOVE_ONE, SamplingMethod.NO_AMPLIFICATION)

    def __init__(self) -> None:
        self.num_releases = 0
        self.backend = object()  # which no checkpoint can hold

    def compose(self, event: GaussianPrivacyEvent, count: int = 1) -> None:
        self.num_releases += count

    def get_privacy_spent(self, delta: float | None = None) -> PrivacySpent:
        return PrivacySpent(float(self.num_releases), 1e-5, self.num_releases, "count")

    def state_dict(self) -> dict[str, object]:
        return {"releases": self.num_releases}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.num_releases = int(str(state["releases"]))


def test_an_accountant_counts_releases_through_repeats_and_checkpoints(make_grid, floats, tmp_path) -> None:
    for rounds, spoiled in ((2, NODES), (4, 0)):
        grid, accountant = make_grid(NODES), Accountant()
        left = [spoiled]

        def after(reply: Message, left: list[int] = left) -> bool:
            if "metrics" in reply.content and left[0] > 0:
                left[0] -= 1
                reply.content["metrics"]["num-examples"] = -1
            return True

        grid.after = after
        inner = FedAvg(fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=NODES)
        wrapper = flower.DifferentialPrivacyServerSideFixedClipping(inner, 1.0, 0.5, NODES, accountant=accountant)
        strategy = Compressed(wrapper, **PLAIN, checkpoint=tmp_path, resume=True)
        strategy.start(grid, model_record(floats), num_rounds=rounds)
        assert accountant.num_releases == rounds


def test_noise_for_a_mean_does_not_fit_another_strategy(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SettingError, match="FedAdam"):
        Compressed(flower.DifferentialPrivacyServerSideFixedClipping(flower.FedAdam(), 1.0, 1.0, NODES))

    class Own(FedAvg):
        def aggregate_train(self, server_round, replies):
            return super().aggregate_train(server_round, replies)

    Compressed(flower.DifferentialPrivacyServerSideFixedClipping(Own(), 1.0, 1.0, NODES))
    assert "Own" in caplog.text
