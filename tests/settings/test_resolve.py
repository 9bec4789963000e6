"""A run's settings: who wins over whom, and what is refused, in one line, before anything is done."""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpress.common.errors import DataError, SettingError
from fedpress.common.settings import Value, key_of
from fedpress.simulations.settings import SECTIONS, keys, resolve
from fedpress.simulations.workloads import WORKLOADS

# One value for each setting that differs from its default, so that a setting that gets lost is noticed.
OTHERS: dict[str, Value] = {
    "workload": "fashion",
    "model": "lenet",
    "clients": 23,
    "per-round": 7,
    "rounds": 3,
    "start": "begun",
    "partition": "shards",
    "alpha": 0.7,
    "shards-per-client": 3,
    "holdout": 0.2,
    "dropout": 0.1,
    "data": "there",
    "fetch": True,
    "seed": 11,
    "engine": "inprocess",
    "workers": 3,
    "out": "here",
    "resume": True,
    "strategy": "FedAvgM",
    "up": "topk(0.1) | ans",
    "down": "fp16",
    "key": "none",
    "shared-initial": False,
    "stateless": True,
    "catch-up": 2.0,
    "clipping-norm": 0.7,
    "exclude": "conv*,*.bias",
    "policy": "fixed",
    "max-norm": 3.5,
    "max-examples": 500.0,
    "fraction-evaluate": 0.5,
    "min-replies": 2,
    "timeout": 60.0,
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
    "distil": True,
    "distil-proxy": 300,
    "distil-margin": 0.1,
    "distil-guard": 200,
    "distil-steps": 7,
    "distil-batch": 9,
    "distil-lr": 0.01,
    "distil-weighing": "entropy",
    "distil-balance": False,
    "distil-previous": False,
    "distil-source": "noise",
    "distil-mixed": 0.5,
    "distil-inversion": 3,
    "distil-criterion": "agreement",
    "distil-patience": 2,
    "distil-tune": 4,
    "distil-temperature": 3.0,
    "groups": "1:0.5,0.25:0.5",
    "scale": 0.25,
    "slices": "importance",
    "reorder": 3,
    "personal": "head,norm",
    "finetune-epochs": 2,
    "finetune-lr": 0.04,
    "finetune-share": 0.3,
    "sparsify": "gradual",
    "sparsity": 0.7,
    "sparsify-rounds": "2:3",
    "sparsify-every": 3,
    "link": "nb-iot,loss=0.1",
    "fleet": "boards,slower=3",
    "deadline": 9.0,
    "training-pace": 0.01,
    "coding-pace": 0.02,
}


def toml(values: Mapping[str, Value]) -> Iterator[str]:
    for key, value in values.items():
        text = {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)
        yield f"{key} = {text}"


def refusal(given: Mapping[str, Value]) -> str:
    with pytest.raises(SettingError) as caught:
        resolve(given)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_two_sections_have_a_setting_of_one_name() -> None:
    names = [key_of(field.name) for section in SECTIONS.values() for field in fields(section)]
    assert len(names) == len(set(names)) == len(keys())


@pytest.mark.parametrize("workload", WORKLOADS)
def test_a_configuration_is_whole_and_resolves_to_itself(workload: str) -> None:
    config = resolve({"workload": workload})
    assert set(config) == {*keys(), "task"}
    assert all(type(value) in (str, int, float, bool) for value in config.values())
    assert resolve({key: value for key, value in config.items() if key != "task"}) == config


@pytest.mark.parametrize("workload", WORKLOADS)
def test_a_workload_s_own_settings_are_settings(workload: str) -> None:
    defaults = WORKLOADS[workload].defaults
    assert set(defaults) <= set(keys())
    assert {"clients", "per-round", "rounds"} <= set(defaults), "they have no default that suits every workload"


def test_every_setting_can_be_given() -> None:
    assert set(OTHERS) == set(keys()) - {"device"}, "the only other device is a GPU"
    config = resolve(OTHERS)
    assert {key: config[key] for key in OTHERS} == OTHERS


@given(st.dictionaries(st.sampled_from(["seed", "rounds", "batch-size", "workers"]), st.integers(1, 2**40)))
def test_what_is_given_wins_and_changes_nothing_else(given: dict[str, Value]) -> None:
    assert resolve(given) == {**resolve({}), **given}


def test_a_file_says_the_same_as_the_command_line(tmp_path: Path) -> None:
    strategy = {"server-momentum": 0.9, "server-learning-rate": 0.5}
    file = tmp_path / "run.toml"
    lines: list[str] = []
    for name, section in SECTIONS.items():
        own = {key_of(field.name) for field in fields(section)} & set(OTHERS) - {"strategy"}
        lines += [f"[{name}]", *toml({key: OTHERS[key] for key in own})]
    file.write_text("\n".join([*lines, "[strategy]", "name = 'FedAvgM'", *toml(strategy)]))
    said = {**OTHERS, **{f"strategy.{key}": value for key, value in strategy.items()}}
    assert resolve({}, file) == resolve(said)


def test_a_file_needs_no_tables(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("rounds = 2\nstrategy = 'FedProx'\n'strategy.proximal-mu' = 0.5")
    assert resolve({}, file) == resolve({"rounds": 2, "strategy": "FedProx", "strategy.proximal-mu": 0.5})


def test_command_line_wins_over_file_over_workload_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("[training]\nlocal-epochs = 3\nmomentum = 0.25")
    own = WORKLOADS["digits"].defaults
    config = resolve({"momentum": 0.5}, file)
    assert {"local-epochs", "momentum", "batch-size"} <= set(own)
    assert (config["momentum"], config["local-epochs"], config["batch-size"]) == (0.5, 3, own["batch-size"])


def test_alpha_means_the_partition_that_has_one() -> None:
    assert resolve({"alpha": 0.1})["partition"] == "dirichlet"
    assert resolve({"alpha": 0.1, "partition": "iid"})["partition"] == "iid"


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
        ({"strategy": "FedXgbBagging"}, ["'FedXgbBagging'", "no tensors"]),
        ({"strategy": "QFedAvg"}, ["QFedAvg", "strategy.client-learning-rate"]),
        ({"strategy.eta": 0.1}, ["FedAvg", "strategy.eta"]),
        ({"strategy": "FedAdam", "strategy.etta": 0.1}, ["strategy.etta", "strategy.eta-l"]),
        ({"strategy": "FedAdam", "strategy.eta": "big"}, ["strategy.eta", "'big'"]),
        ({"strategy": "FedAdam", "strategy.eta": float("nan")}, ["strategy.eta", "nan"]),
        ({"strategy": "FedTrimmedAvg", "strategy.beta": 0.7}, ["FedTrimmedAvg", "beta"]),
        ({"optimizer": "adamm"}, ["'adamm'", "'adam'"]),
        ({"schedule": "cosin"}, ["'cosin'", "'cosine'"]),
        ({"partition": "shard"}, ["'shard'", "'shards'"]),
        ({"engine": "rey"}, ["'rey'", "'ray'"]),
        ({"device": "tpu"}, ["'tpu'", "cuda"]),
        ({"device": "cuda:1000"}, ["'cuda:1000'", "GPUs"]),
        ({"lrr": 0.1}, ["'lrr'", "'lr'"]),
        ({"task": "os:system"}, ["'task'"]),
        ({"rounds": 0}, ["rounds", "at least 1", "0"]),
        ({"per-round": 0}, ["per-round", "0"]),
        ({"clients": 0}, ["clients", "0"]),
        ({"clients": 5, "per-round": 6}, ["per-round", "5", "6"]),
        ({"min-replies": 11}, ["min-replies", "10", "11"]),
        ({"workers": -1}, ["workers", "-1"]),
        ({"seed": -1}, ["seed", "-1"]),
        ({"alpha": 0.0}, ["alpha", "0.0"]),
        ({"alpha": float("nan")}, ["alpha", "nan"]),
        ({"holdout": 1.0}, ["holdout", "1.0"]),
        ({"dropout": -0.1}, ["dropout", "-0.1"]),
        ({"fraction-evaluate": 1.5}, ["fraction-evaluate", "1.5"]),
        ({"fraction-evaluate": 0.5}, ["holdout"]),
        ({"distil-weighing": "clases"}, ["'clases'", "'classes'"]),
        ({"distil-source": "noize"}, ["'noize'", "'noise'"]),
        ({"distil-source": "folder:"}, ["'folder:'", "folder:PATH"]),
        ({"distil-criterion": "client"}, ["'client'", "'clients'"]),
        ({"distil": True, "distil-criterion": "clients"}, ["clients", "holdout"]),
        ({"distil-proxy": 0}, ["distil-proxy", "0"]),
        ({"distil-mixed": 1.0}, ["distil-mixed", "1.0"]),
        ({"distil-lr": 0.0}, ["distil-lr", "0.0"]),
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
def test_what_cannot_work_is_refused_in_one_line(given: dict[str, Value], words: list[str]) -> None:
    line = refusal(given)
    assert all(word in line for word in words), line


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rounds = ", ["not TOML"]),
        ("rounds = [1, 2]", ["rounds", "[1, 2]"]),
        ("[train]\nlr = 0.1", ["'train'", "'training'"]),
        ("[training]\nlrr = 0.1", ["'lrr'"]),
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
    with pytest.raises(DataError, match=r"none\.toml"):
        resolve({}, tmp_path / "none.toml")
    with pytest.raises(DataError, match="cannot be read"):
        resolve({}, tmp_path)
    (tmp_path / "run.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingError, match="not TOML"):
        resolve({}, tmp_path / "run.toml")


def test_another_optimizer_comes_without_the_workloads_momentum() -> None:
    assert resolve({})["momentum"] == 0.9
    assert resolve({"optimizer": "adam"})["momentum"] == 0.0
    with pytest.raises(SettingError, match="momentum belongs to sgd"):
        resolve({"optimizer": "adam", "momentum": 0.9})
