"""Policies of rate: what they pick, and that a federation does as they say."""

import math

import numpy as np
import pytest
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import FedAvg

from fedpress.common.settings import read
from fedpress.compression import Layout, SettingError, parse
from fedpress.compression.registry import examples
from fedpress.compression.stages.transform.crosspolytope import LEAST_NOISE
from fedpress.protocol.arrays import model_record
from fedpress.server import Compressed
from fedpress.server.aggregation.aggregate import UpdateEnergy
from fedpress.server.rate_control.bias import sent_share
from fedpress.server.rate_control.policies import (
    MOST_NOISE,
    TOLERATED,
    Automatic,
    Budget,
    Fixed,
    Policy,
    RateContext,
    build_policy,
)
from fedpress.settings.codecs import DELTAS
from fedpress.settings.server import PolicySettings

from .conftest import make_app

EF = "ef | lowrank(nmse=0.1) | ans"


def test_each_policy_chooses_its_codec() -> None:
    known = RateContext(node="3", round=1, requests=10)
    assert str(Fixed(EF).codec(known)) == EF
    assert str(Budget(EF, 20_000).codec(known)) == "ef | lowrank(bytes=2000) | ans"


@pytest.mark.parametrize(
    ("config", "setting"),
    [
        ({"name": "bugdet"}, "name"),
        ({"name": "budget"}, "nbytes"),
        ({"name": "budget", "nbytes": -1}, "nbytes"),
        ({"name": "budget", "nbytes": "many"}, "nbytes"),
        ({"name": "fixed", "nbytes": 9}, "nbytes"),
    ],
)
def test_wrong_policies_are_refused_in_one_line(config: dict[str, object], setting: str) -> None:
    with pytest.raises(SettingError, match=f"^{setting} must be .*got"):
        read(PolicySettings, config)


def test_a_budget_needs_a_codec_that_takes_a_target() -> None:
    with pytest.raises(SettingError, match="has no target to be set"):
        build_policy(PolicySettings("budget", 9), "topk(0.1)")


def test_a_policy_is_built_from_its_settings() -> None:
    assert build_policy(PolicySettings(), EF) == Fixed(EF)
    assert build_policy(PolicySettings("budget", 3000), EF) == Budget(EF, 3000)


def test_a_federation_keeps_a_budget_and_its_residuals(make_grid, model) -> None:
    seen = []
    strategy = Compressed(FedAvg(fraction_train=1.0, fraction_evaluate=0.0), up=Budget(EF, 3000), down=EF[5:]).observe(
        seen.append
    )
    strategy.start(make_grid(5), model_record(model), num_rounds=4)
    for done in seen[1:]:
        assert (len(done.counted), {counted.codec for counted in done.counted.values()}) == (
            5,
            {"ef | lowrank(bytes=600) | ans"},
        )
        assert strategy.ledger.totals(round=done.number, direction="up").frame <= 3000


def test_no_target_is_below_the_bytes_of_exact_tensors(make_grid, model) -> None:
    model |= {"norm.running_mean": np.ones(500, np.float32), "norm.running_var": np.ones(500, np.float32)}
    seen = []
    inner = FedAvg(fraction_train=1.0, fraction_evaluate=0.0)
    Compressed(inner, up=Budget(EF, 1)).observe(seen.append).start(make_grid(3), model_record(model), num_rounds=3)
    assert [len(done.counted) for done in seen[1:]] == [3] * 3
    exact = Layout.of(model).exact_nbytes
    assert {counted.codec for counted in seen[-1].counted.values()} == {f"ef | lowrank(bytes={exact + 256}) | ans"}


def test_codecs_of_one_policy_keep_one_memory(make_grid, model) -> None:
    class Fickle(Policy):
        def codec(self, known: RateContext):
            return parse("topk(0.1) | ans" if known.round > 1 else "ef | topk(0.1) | ans")

    strategy = Compressed(FedAvg(fraction_train=1.0, fraction_evaluate=0.0), up=Fickle())
    with pytest.raises(SettingError, match="keep the same memory"):
        strategy.start(make_grid(3), model_record(model), num_rounds=2)


@pytest.mark.parametrize("up", ["ef | topk(0.01) | ans", "qsgd(4) | ans", "sign | ans"])
@pytest.mark.parametrize("kind", [flower.FedMedian, flower.FedTrimmedAvg])
def test_medians_of_equal_values_are_warned_of_once(kind, up: str, caplog: pytest.LogCaptureFixture) -> None:
    Compressed(kind(), up=up)
    assert len([record for record in caplog.records if kind.__name__ in record.getMessage()]) == 1


@pytest.mark.parametrize(
    ("kind", "up"),
    [(flower.FedMedian, "none"), (flower.FedMedian, "ef | lowrank(nmse=0.1) | ans"), (flower.MultiKrum, "qsgd(4)")],
)
def test_what_goes_together_is_not_warned_of(kind, up: str, caplog: pytest.LogCaptureFixture) -> None:
    Compressed(kind(), up=up)
    assert not caplog.records


def measured(policy: Automatic, replies: int, common: float) -> UpdateEnergy:
    """The expected energies of a round with updates of norm 1, of which the squared share `common` is the same."""
    signal = common + (1 - common) / replies
    return UpdateEnergy(mean=signal + policy.noise / replies, if_orthogonal=(1 + policy.noise) / replies)


@pytest.mark.parametrize("common", [0.01, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("replies", [2, 10, 50])
def test_automatic_noise_settles_in_proportion_to_the_signal(replies: int, common: float) -> None:
    policy = Automatic()
    for _ in range(20):
        policy.observe(measured(policy, replies, common))
    wanted = TOLERATED[DELTAS] * replies * (common + (1 - common) / replies)
    assert policy.noise == pytest.approx(min(max(wanted, LEAST_NOISE), MOST_NOISE), rel=0.02)


def test_the_fewer_replies_there_are_the_less_noise_the_first_updates_have() -> None:
    first = [Automatic() for _ in range(3)]
    specs = [str(p.codec(RateContext(node="3", round=1, requests=n))) for p, n in zip(first, (1, 5, 50), strict=True)]
    assert specs == ["crosspolytope(noise=0.8)", "crosspolytope(noise=4.0)", "crosspolytope(noise=8.0)"]


def test_automatic_noise_stays_in_its_range_whatever_is_measured() -> None:
    policy = Automatic()
    for energy in [
        UpdateEnergy(0.0, 0.0),
        UpdateEnergy(0.0, 1.0),
        UpdateEnergy(1e300, 1e-300),
        UpdateEnergy(1.0, 1e300),
        UpdateEnergy(math.nan, 1.0),
        UpdateEnergy(math.inf, 1.0),
    ]:
        for _ in range(10):
            policy.observe(energy)
            assert LEAST_NOISE <= policy.noise <= MOST_NOISE


def test_a_policy_that_is_restored_chooses_as_before() -> None:
    policy, restored = Automatic(), Automatic()
    policy.observe(UpdateEnergy(mean=1.0, if_orthogonal=0.3))
    restored.load_state(policy.dump_state())
    context = RateContext(node="3", round=2, requests=10)
    assert str(restored.codec(context)) == str(policy.codec(context)) != str(Automatic().codec(context))


@pytest.mark.parametrize("kind", [FedAvg, flower.FedMedian, flower.FedAdam])
def test_auto_measures_and_sends_fewer_bytes_both_ways(make_grid, model, kind: type[FedAvg]) -> None:
    seen = []
    inner = kind(fraction_train=1.0, fraction_evaluate=0.0)
    strategy = Compressed(inner, up="auto", down="auto").observe(seen.append)
    strategy.start(make_grid(8), model_record(model), num_rounds=4)
    codecs = [{counted.codec for counted in done.counted.values()} for done in seen[1:]]
    assert all(len(of_round) == 1 for of_round in codecs)
    assert len(set.union(*codecs)) > 1, "the noise follows what was measured"
    for direction in ("up", "down"):
        assert strategy.ledger.totals(direction=direction).ratio > 1


def test_statistics_that_are_sent_exactly_are_neither_signal_nor_noise(make_grid, model) -> None:
    noise = []
    for size in (0.0, 1e3):
        policy = Automatic()
        grid = make_grid(4, app=make_app())
        statistics = {"norm.running_mean": np.full(50, size, np.float32)}
        inner = FedAvg(fraction_train=1.0, fraction_evaluate=0.0)
        Compressed(inner, up=policy, down="none").start(grid, model_record({**model, **statistics}), num_rounds=3)
        noise.append(policy.noise)
    assert noise[0] == pytest.approx(noise[1], rel=1e-3)


def test_a_budget_needs_a_codec_of_its_own() -> None:
    with pytest.raises(SettingError, match=r"^up must be a codec .* got 'auto'"):
        build_policy(PolicySettings("budget", 3000), "auto")


@pytest.mark.parametrize(
    ("up", "nodes", "warned"),
    [
        ("ef | topk(0.1) | ans", 10, True),
        ("ef | topk(0.1) | ans", 3, False),
        ("lowrank(nmse=0.1) | ans", 3, True),
        ("topk(0.1) | ans", 10, True),
        ("qsgd(4) | ans", 10, False),
        ("eden(1) | pack", 10, False),
        ("fp16", 10, False),
        ("none", 10, False),
        ("auto", 10, False),
    ],
)
def test_what_is_lost_for_good_or_for_long_is_warned_of_once(
    make_grid, model, up: str, nodes: int, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    inner = FedAvg(fraction_train=3 / nodes, fraction_evaluate=0.0)
    Compressed(inner, up=up, down="none").start(make_grid(nodes), model_record(model), num_rounds=2)
    assert len([record for record in caplog.records if record.getMessage().startswith("up, ")]) == warned


@pytest.mark.parametrize(
    ("down", "warned"),
    [
        ("best", True),
        ("qsgd(1) | ans", True),
        ("subspace(0.2) | crosspolytope(noise=2.0)", True),
        ("auto", False),
        ("none", False),
        ("topk(0.1) | ans", False),
        ("crosspolytope(noise=0.6)", False),
        ("subspace(0.2) | even(0.5) | deadzone(nmse=0.1) | ans", False),
    ],
)
def test_a_downlink_that_takes_models_away_from_the_servers_is_warned_of_once(
    make_grid, model, down: str, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    inner = FedAvg(fraction_train=1.0, fraction_evaluate=0.0)
    Compressed(inner, up="none", down=down).start(make_grid(2), model_record(model), num_rounds=1)
    assert len([record for record in caplog.records if record.getMessage().startswith("down, ")]) == warned


@pytest.mark.parametrize("spec", examples())
def test_no_unbiased_codec_is_taken_for_a_biased_one(spec: str) -> None:
    if spec in ("best", "best(noise=1.0)"):
        assert sent_share(parse(spec)) == pytest.approx(1, abs=0.05)
    unbiased = (
        "none",
        "fp16",
        "bf16",
        "randk(0.1)",
        "qsgd",
        "crosspolytope",
        "drive |",
        "eden",
        "ternary |",
        "subspace(0.2)",
        "subspace(0.5)",
    )
    if spec.startswith(unbiased):
        assert sent_share(parse(spec)) == pytest.approx(1, abs=0.05)
