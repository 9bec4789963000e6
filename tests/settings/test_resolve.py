"""A run's settings: who wins over whom, and what is refused, in one line, before anything is done."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpress.common.errors import SettingError
from fedpress.common.settings import Value, toml
from fedpress.simulations.settings import resolve, simulation_schema
from fedpress.simulations.workloads import WORKLOADS

# One value for each setting that differs from its default, so that a setting that gets lost is noticed.
OTHERS: dict[str, Any] = {
    "workload": "fashion",
    "model": "lenet",
    "clients": 23,
    "per-round": 7,
    "rounds": 3,
    "apps": "own.apps",
    "start": str(Path(__file__).parent),
    "partition": "shards",
    "alpha": 0.5,
    "shards-per-client": 3,
    "holdout": 0.2,
    "dropout": 0.1,
    "data": str(Path(__file__).parent),
    "fetch": True,
    "seed": 11,
    "engine": "inprocess",
    "workers": 3,
    "out": "here",
    "resume": True,
    "log-bytes": 5000,
    "log-files": 2,
    "strategy.name": "FedAvgM",
    "up": "deadzone(nmse=0.1) | ans",
    "down": "fp16",
    "broadcast": "steps",
    "key": "none",
    "shared-initial": False,
    "stateless": True,
    "clipping.norm": 0.7,
    "exclude": ["conv*", "*.bias"],
    "policy.name": "budget",
    "nbytes": 9000,
    "max-norm": 3.5,
    "norm-multiple": 4.0,
    "weight-multiple": 2.0,
    "stored-bytes": 1000,
    "fraction-evaluate": 0.5,
    "min-replies": 2,
    "timeout": 60.0,
    "over-selection": 1.5,
    "close-at": 0.9,
    "optimizer": "sgd",
    "lr": 0.03,
    "momentum": 0.8,
    "nesterov": True,
    "schedule": "cosine",
    "warmup-rounds": 1,
    "lr-end": 0.1,
    "lr-step": 4,
    "lr-decay": 0.9,
    "batch-size": 5,
    "local-epochs": 2,
    "local-steps": 9,
    "l1": 0.001,
    "weight-decay": 0.002,
    "clip-norm": 1.5,
    "proximal-mu": 0.3,
    "distillation.enabled": True,
    "proxy-examples": 300,
    "margin": 0.1,
    "guard-examples": 200,
    "distillation.steps": 7,
    "proxy-batch-size": 9,
    "proxy-lr": 0.01,
    "teacher-weights": "entropy",
    "balance": False,
    "previous-model": False,
    "source": "noise",
    "mixed": 0.5,
    "inversion-steps": 3,
    "criterion": "agreement",
    "tune-steps": 4,
    "temperature": 3.0,
    "groups": [{"share": 0.5}, {"width": 0.25, "share": 0.5}],
    "scale": 0.25,
    "slices": "importance",
    "reorder": 3,
    "tensors": ["head", "norm"],
    "finetune-epochs": 2,
    "finetune-lr": 0.04,
    "finetune-share": 0.3,
    "target": 0.7,
    "first-round": 2,
    "last-round": 3,
    "sparsity.every": 3,
    **{"link.name": "nb-iot", "link.loss": 0.1, "link.down": 1e4, "link.up": 2e4, "latency": 0.5, "payload": 100},
    **{"overhead": 10, "duty": 0.5, "devices.name": "boards", "slower": 3.0, "spread": 0.2, "stragglers": 0.1},
    **{"straggling": 2.0, "dropouts": 0.1},
    "deadline": 9.0,
    "training-pace": 0.01,
    "coding-pace": 0.02,
}


def lines(values: Mapping[str, Any]) -> Iterator[str]:
    for key, value in values.items():
        yield f"{key} = {toml(value)}"


def refusal(given: Mapping[str, Value]) -> str:
    with pytest.raises(SettingError) as caught:
        resolve(given)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("workload", WORKLOADS)
def test_a_configuration_is_whole_and_resolves_to_itself(workload: str) -> None:
    settings = resolve({"workload": workload})
    config = settings.to_config()
    needed = {key for key, setting in simulation_schema().declared.items() if setting.default is not None}
    assert set(config) == needed
    assert resolve(config) == settings


@pytest.mark.parametrize("workload", WORKLOADS)
def test_a_workload_s_own_settings_are_settings(workload: str) -> None:
    found = simulation_schema().flatten(WORKLOADS[workload].defaults)
    assert {"simulation.clients", "server.per-round", "server.rounds"} <= set(found), "they have no default for all"


def test_every_setting_can_be_given() -> None:
    flat = simulation_schema().flatten(OTHERS)
    assert set(simulation_schema().declared) - set(flat) == {
        "run.device",  # the only other one is a GPU
        "training.subspace",  # which weight decay leaves
    }
    config = resolve(OTHERS).to_config()
    found = {key: json.loads(config[key]) if isinstance(flat[key], list) else config[key] for key in flat}
    assert found == flat
    assert resolve({}).to_config() != config


@given(st.dictionaries(st.sampled_from(["seed", "rounds", "batch-size", "workers"]), st.integers(1, 2**40)))
def test_what_is_given_wins_and_changes_nothing_else(given: dict[str, Value]) -> None:
    flat = simulation_schema().flatten(given)
    assert resolve(given).to_config() == {**resolve({}).to_config(), **flat}


def test_a_file_says_the_same_as_the_command_line(tmp_path: Path) -> None:
    strategy = {"server-momentum": 0.9, "server-learning-rate": 0.5}
    flat = simulation_schema().flatten(OTHERS)
    text: list[str] = []
    for table in sorted({key.rpartition(".")[0] for key in flat}):
        mine = {k.rpartition(".")[2]: v for k, v in flat.items() if k.rpartition(".")[0] == table}
        text += [f"[{table}]", *lines(mine)]
        text += lines(strategy) if table == "strategy" else []
    file = tmp_path / "run.toml"
    file.write_text("\n".join(text))
    assert resolve({}, file) == resolve({**OTHERS, **{f"strategy.{key}": value for key, value in strategy.items()}})


def test_a_file_needs_no_tables(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("rounds = 2\nstrategy = 'FedProx'\n'strategy.proximal-mu' = 0.5")
    assert resolve({}, file) == resolve({"rounds": 2, "strategy": "FedProx", "strategy.proximal-mu": 0.5})


def test_command_line_wins_over_file_over_workload_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("[training]\nlocal-epochs = 3\nmomentum = 0.25")
    own = WORKLOADS["digits"].defaults
    training = resolve({"momentum": 0.5}, file).training
    assert {"local-epochs", "momentum", "batch-size"} <= set(own)
    assert (training.momentum, training.local_epochs, training.batch_size) == (0.5, 3, own["batch-size"])


def test_alpha_means_the_partition_that_has_one() -> None:
    assert resolve({"alpha": 0.1}).simulation.partition == "dirichlet"
    assert resolve({"shards-per-client": 3}).simulation.partition == "shards"
    assert resolve({"workload": "fashion", "partition": "iid"}).simulation.partition == "iid"
    assert "partition must be dirichlet" in refusal({"alpha": 0.1, "partition": "iid"})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"workload": "digit"}, ["'digit'", "'digits'"]),
        ({"workload": "fashon"}, ["'fashon'", "'fashion'"]),
        ({"workload": "no_such_module:thing"}, ["'no_such_module:thing'"]),
        ({"workload": "json:dumps"}, ["'json:dumps'", "models", "defaults", "load"]),
        ({"model": "mpl"}, ["'mpl'", "mlp"]),
        ({"up": "topq(0.1)"}, ["'topq'", "'topk'"]),
        ({"up": "topk(0)"}, ["0"]),
        ({"up": "topk(1.5)"}, ["(0, 1]", "1.5"]),
        ({"down": "ef |"}, ["'ef |'"]),
        ({"down": ""}, ["''"]),
        ({"strategy": "FedAvgg"}, ["'FedAvgg'", "'FedAvg'"]),
        ({"strategy": "FedXgbBagging"}, ["'FedXgbBagging'", "tensors"]),
        ({"strategy": "QFedAvg"}, ["QFedAvg", "strategy.client-learning-rate"]),
        ({"strategy.eta": 0.1}, ["FedAvg", "strategy.eta"]),
        ({"strategy": "FedAdam", "strategy.etta": 0.1}, ["strategy.etta", "strategy.eta-l"]),
        ({"strategy": "FedAdam", "strategy.eta": "big"}, ["strategy.eta", "'big'"]),
        ({"strategy": "FedAdam", "strategy.eta": float("nan")}, ["strategy.eta", "nan"]),
        ({"optimizer": "adamm"}, ["'adamm'", "'adam'"]),
        ({"schedule": "cosin"}, ["'cosin'", "'cosine'"]),
        ({"partition": "shard"}, ["'shard'", "'shards'"]),
        ({"engine": "rey"}, ["engine must be one of inprocess, ray, got 'rey'", "'ray'"]),
        ({"device": "tpu"}, ["'tpu'", "cuda"]),
        ({"device": "cuda:1000"}, ["'cuda:1000'", "GPUs"]),
        ({"lrr": 0.1}, ["'lrr'", "'training.lr'"]),
        ({"task": "os:system"}, ["task"]),
        ({"rounds": 0}, ["rounds", "at least 1", "0"]),
        ({"per-round": 0}, ["per-round", "0"]),
        ({"clients": 0}, ["clients must be at least 1, got 0"]),
        ({"clients": 5, "per-round": 6}, ["per-round", "5", "6"]),
        ({"min-replies": 11}, ["min-replies", "10", "11"]),
        ({"workers": -1}, ["workers must be at least 0, got -1"]),
        ({"seed": -1}, ["seed", "-1"]),
        ({"alpha": 0.0}, ["alpha", "0.0"]),
        ({"alpha": float("nan")}, ["alpha", "nan"]),
        ({"holdout": 1.0}, ["holdout", "1.0"]),
        ({"dropout": -0.1}, ["dropout", "-0.1"]),
        ({"fraction-evaluate": 1.5}, ["fraction-evaluate", "1.5"]),
        ({"fraction-evaluate": 0.5}, ["holdout"]),
        ({"teacher-weights": "clases"}, ["'clases'", "'classes'"]),
        ({"source": "noize"}, ["'noize'", "'noise'"]),
        ({"source": "folder:"}, ["'folder:'", "folder:PATH"]),
        ({"criterion": "client"}, ["'client'", "'clients'"]),
        ({"distillation.enabled": True, "criterion": "clients"}, ["clients", "holdout"]),
        ({"proxy-examples": 0}, ["proxy-examples", "0"]),
        ({"mixed": 1.0}, ["mixed", "1.0"]),
        ({"proxy-lr": 0.0}, ["proxy-lr", "0.0"]),
        ({"timeout": 0.0}, ["timeout", "0.0"]),
        ({"timeout": float("inf")}, ["timeout", "inf"]),
        ({"lr": float("inf")}, ["lr", "inf"]),
        ({"lr": "fast"}, ["lr", "'fast'"]),
        ({"lr": True}, ["lr", "True"]),
        ({"rounds": 1.5}, ["rounds", "1.5"]),
        ({"clients": True}, ["clients", "True"]),
        ({"nesterov": 1}, ["nesterov", "1"]),
        ({"out": 5}, ["out", "5"]),
        ({"nesterov": True, "momentum": 0.0}, ["nesterov", "momentum"]),
        ({"optimizer": "adam", "momentum": 0.5}, ["momentum", "0.5", "adam"]),
    ],
    ids=str,
)
def test_conflicting_settings_are_refused_in_one_line(given: dict[str, Value], words: list[str]) -> None:
    line = refusal(given)
    assert all(word in line for word in words), line


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rounds = ", ["not TOML"]),
        ("rounds = [1, 2]", ["rounds", "[1, 2]"]),
        ("[train]\nlr = 0.1", ["'train'", "'training'"]),
        ("[training]\nlrr = 0.1", ["lrr", "lr"]),
        ("[strategy]\nname = 'FedAvg'\neta = 1.0", ["FedAvg", "strategy.eta"]),
    ],
)
def test_a_file_that_cannot_work_is_refused_in_one_line(tmp_path: Path, text: str, words: list[str]) -> None:
    file = tmp_path / "run.toml"
    file.write_text(text)
    with pytest.raises(SettingError) as caught:
        resolve({}, file)
    line = str(caught.value)
    assert "\n" not in line
    assert all(word in line for word in words), line


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"none\.toml"):
        resolve({}, tmp_path / "none.toml")
    with pytest.raises(SettingError, match="cannot be read"):
        resolve({}, tmp_path)
    (tmp_path / "run.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingError, match=r"run\.toml"):
        resolve({}, tmp_path / "run.toml")


def test_another_optimizer_comes_without_the_workloads_momentum() -> None:
    assert resolve({}).training.momentum == 0.9
    assert resolve({"optimizer": "adam"}).training.momentum == 0.0
    with pytest.raises(SettingError, match="momentum must be 0 with adam"):
        resolve({"optimizer": "adam", "momentum": 0.9})
