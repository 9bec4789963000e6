"""Policies of rate: what they pick, and that a federation does as they say."""

import numpy as np
import pytest
from flwr.serverapp.strategy import FedAvg

from fedpress.compression import Layout, SettingError, parse
from fedpress.server import Compressed
from fedpress.server.aggregate import model_record
from fedpress.server.policies import Budget, Deadline, Fixed, Known, Policy, Schedule, build_policy

EF = "ef | lowrank(nmse=0.1) | ans"


def known(**changes: object) -> Known:
    facts = {"node": "3", "round": 1, "asked": 10, "parameters": 8000, "seconds": 0.0, "frame": 0, "norm": 0.0}
    return Known(**{**facts, "costs": {}, **changes})  # type: ignore[arg-type]


def test_what_each_picks() -> None:
    assert str(Fixed(EF).codec(known())) == EF
    assert str(Budget(EF, 20_000).codec(known())) == "ef | lowrank(bytes=2000) | ans"
    schedule = Schedule("deadzone(nmse=0.1) | ans", {1: 1.0, 20: 0.5})
    by_error = Schedule(EF, nmse={1: 0.5, 20: 0.1})
    assert str(by_error.codec(known(round=19))) == "ef | lowrank(nmse=0.5) | ans"
    picked = [str(schedule.codec(known(round=number))) for number in (1, 19, 20, 90)]
    assert picked == ["deadzone(bytes=1000) | ans"] * 2 + ["deadzone(bytes=500) | ans"] * 2


def test_a_deadline_gives_slow_links_and_slow_nodes_fewer_bytes() -> None:
    policy = Deadline(EF, seconds=10.0, bytes_per_second=1e6, links={"3": 200.0}, training={"4": 9.5, "5": 30.0})
    cost = {EF: 5000.0}
    assert str(policy.codec(known(node="1", costs=cost))) == EF
    assert str(policy.codec(known(node="3"))) == EF  # nobody knows yet what it takes
    assert str(policy.codec(known(node="3", costs=cost))) == "ef | lowrank(bytes=2000) | ans"
    assert str(policy.codec(known(node="3", costs=cost, seconds=5.0))) == "ef | lowrank(bytes=1000) | ans"
    assert str(policy.codec(known(node="4", costs=cost))) == EF
    assert str(policy.codec(known(node="5", costs=cost))) == "ef | lowrank(bytes=256) | ans"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"policy": "bugdet"}, "did you mean 'budget'"),
        ({"policy": "budget"}, r"needs policy\.nbytes"),
        ({"policy": "budget", "policy.nbytes": 0}, "nbytes is at least 1, got 0"),
        ({"policy": "budget", "policy.bits": 3}, r"takes policy\.nbytes, got policy\.bits"),
        ({"policy": "schedule", "policy.bits": "1-3"}, "pairs such as 1:0.5,20:0.25"),
        ({"policy": "budget", "policy.nbytes": 9, "up": "topk(0.1)"}, "has no target to be set"),
        ({"policy": "schedule"}, "takes one of bits and nmse"),
        ({"policy": "fixed", "policy.nbytes": 9}, "takes no arguments"),
    ],
)
def test_wrong_policies_are_refused_in_one_line(config: dict[str, object], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        build_policy({"up": EF, **config})  # type: ignore[dict-item]


def test_a_policy_is_read_from_a_configuration() -> None:
    assert build_policy({"up": EF}) == Fixed(EF)
    assert build_policy({"up": EF, "policy": "schedule", "policy.bits": "1:2,5:0.5"}) == Schedule(EF, {1: 2.0, 5: 0.5})
    config = {"policy": "deadline", "policy.seconds": 3, "policy.bytes-per-second": 1000, "policy.links": "7:10,8:20"}
    assert build_policy({"up": EF, **config}) == Deadline(EF, 3.0, 1000.0, {"7": 10.0, "8": 20.0})


def test_a_federation_keeps_a_budget_and_its_residuals(make_grid, model) -> None:
    seen = []
    strategy = Compressed(
        FedAvg(fraction_train=1.0, fraction_evaluate=0.0), up=Budget(EF, 3000), down=EF[5:], on_round=seen.append
    )
    strategy.start(make_grid(5), model_record(model), num_rounds=4)
    for done in seen[1:]:
        assert (len(done.counted), {counted.codec for counted in done.counted.values()}) == (
            5,
            {"ef | lowrank(bytes=600) | ans"},
        )
        assert strategy.ledger.totals(round=done.number, direction="up").frame <= 3000


@pytest.mark.parametrize(
    "policy", [Budget(EF, 1), Schedule(EF, {1: 1e-6}), Deadline(EF, 1.0, 1.0, training={str(n): 9.0 for n in range(3)})]
)
def test_no_target_is_below_what_travels_exactly(policy: Policy, make_grid, model) -> None:
    model |= {"norm.running_mean": np.ones(500, np.float32), "norm.running_var": np.ones(500, np.float32)}
    seen = []
    inner = FedAvg(fraction_train=1.0, fraction_evaluate=0.0)
    Compressed(inner, up=policy, on_round=seen.append).start(make_grid(3), model_record(model), num_rounds=3)
    assert [len(done.counted) for done in seen[1:]] == [3] * 3
    exact = Layout.of(model).exact_nbytes
    assert {counted.codec for counted in seen[-1].counted.values()} == {f"ef | lowrank(bytes={exact + 256}) | ans"}


def test_codecs_of_one_policy_keep_one_memory(make_grid, model) -> None:
    class Fickle(Policy):
        def codec(self, known: Known):
            return parse("topk(0.1) | ans" if known.round > 1 else "ef | topk(0.1) | ans")

    strategy = Compressed(FedAvg(fraction_train=1.0, fraction_evaluate=0.0), up=Fickle())
    with pytest.raises(SettingError, match="keep the same memory"):
        strategy.start(make_grid(3), model_record(model), num_rounds=2)
