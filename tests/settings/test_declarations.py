"""Laws of declared settings: what is written is read back, and a mistake has its line."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpress.common.errors import SettingError
from fedpress.common.settings import (
    Arguments,
    Schema,
    Settings,
    free_arguments,
    option,
    read_file,
    read_pair,
    table,
    toml,
)


@dataclass(frozen=True)
class Part(Settings):
    width: float = option(1.0, above=0, maximum=1, help="width")
    model: str = option("", help="model")


@dataclass(frozen=True)
class Wire(Settings):
    speed: float | None = option(None, above=0, help="speed")
    name: str = option("copper", help="name")


@dataclass(frozen=True)
class Machine(Settings):
    size: int = option(minimum=1, help="size")
    engine: str = option("steam", choices=("steam", "petrol"), help="engine")
    wheels_up: bool = option(False, help="wheels")
    weight: float = option(0.5, minimum=0, below=1, help="weight")
    parts: tuple[Part, ...] = option((), help="parts")
    labels: tuple[str, ...] = option((), help="labels")
    wire: Wire = table(Wire)


@dataclass(frozen=True)
class Plan(Settings):
    name: str = option("idle", help="plan")
    weight_limit: int = option(9, help="limit")
    rest: Arguments = free_arguments("more")


SCHEMA = Schema({"machine": Machine, "plan": Plan})
NAMES = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF), max_size=8)

machines = st.builds(
    Machine,
    size=st.integers(1, 2**40),
    engine=st.sampled_from(["steam", "petrol"]),
    wheels_up=st.booleans(),
    weight=st.floats(0, 0.99),
    parts=st.lists(st.builds(Part, width=st.floats(0.01, 1), model=NAMES), max_size=3).map(tuple),
    labels=st.lists(NAMES, max_size=3).map(tuple),
    wire=st.builds(Wire, speed=st.none() | st.floats(0.1, 9), name=NAMES),
)
plans = st.builds(
    Plan,
    name=NAMES,
    rest=st.dictionaries(
        st.sampled_from(["eta", "mu", "deep.er"]), st.integers() | st.booleans() | st.floats(0, 1) | NAMES, max_size=3
    ).map(lambda found: tuple(sorted(found.items()))),
)


@given(machines, plans)
def test_what_is_written_is_read_back(machine: Machine, plan: Plan) -> None:
    sections: dict[str, Settings] = {"machine": machine, "plan": plan}
    flat = SCHEMA.write(sections)
    assert all(type(value) in (str, int, float, bool) for value in flat.values())
    assert SCHEMA.read(flat) == sections
    assert SCHEMA.read(json.loads(json.dumps(flat))) == sections
    assert hash(machine) == hash(SCHEMA.read(flat)["machine"])


@settings(max_examples=30)
@given(machines)
def test_a_file_has_the_same_as_flat_names(tmp_path_factory: pytest.TempPathFactory, machine: Machine) -> None:
    path = tmp_path_factory.mktemp("toml") / "file.toml"
    lines = ["[machine]", f"size = {machine.size}", f"weight = {toml(machine.weight)}"]
    lines += [f"parts = {toml(machine.parts)}", f"labels = {toml(machine.labels)}"]
    path.write_text("\n".join([*lines, "[machine.wire]", f"name = {toml(machine.wire.name)}"]), encoding="utf-8")
    read = SCHEMA.read(read_file(SCHEMA, path))["machine"]
    assert (read.size, read.weight, read.parts) == (machine.size, machine.weight, machine.parts)
    assert (read.labels, read.wire.name) == (machine.labels, machine.wire.name)


def test_a_bare_key_is_enough_where_it_is_unambiguous() -> None:
    given = {"size": 3, "speed": 2, "wire.name": "glass", "plan.name": "go", "plan.eta": 0.5}
    assert SCHEMA.flatten(given) == {
        "machine.size": 3,
        "machine.wire.speed": 2,
        "machine.wire.name": "glass",
        "plan.name": "go",
        "plan.eta": 0.5,
    }
    assert SCHEMA.find("name") == "plan.name"  # that of a section comes before those of tables in one
    twice = Schema({"machine": Machine, "other": Machine})
    with pytest.raises(SettingError, match=r"machine\.size or other\.size"):
        twice.find("size")


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({}, "size must be given"),
        ({"size": 0}, "size must be at least 1, got 0"),
        ({"size": 1.5}, "size must be a whole number, got 1.5"),
        ({"size": True}, "size must be a whole number, got True"),
        ({"size": 1, "weight": 1.0}, "weight must be at least 0 and below 1, got 1.0"),
        ({"size": 1, "weight": float("nan")}, "weight must be a finite number, got nan"),
        ({"size": 1, "weight": "much"}, "weight must be a number, got 'much'"),
        ({"size": 1, "engine": "steem"}, "engine must be one of steam, petrol, got 'steem': did you mean 'steam'?"),
        ({"size": 1, "wheels-up": 1}, "wheels-up must be true or false, got 1"),
        ({"size": 1, "parts": [{"width": 2.0}]}, "width must be above 0 and at most 1, got 2.0"),
        ({"size": 1, "parts": [{"widht": 1.0}]}, "parts: unknown setting 'widht': did you mean 'width'?"),
        ({"size": 1, "parts": "big"}, "parts must be a list of tables, got 'big'"),
        ({"size": 1, "labels": [1]}, "labels must be text, got 1"),
        ({"size": 1, "speed": 0.0}, "speed must be above 0, got 0.0"),
        ({"sise": 1}, "unknown setting 'sise': did you mean 'machine.size'?"),
        ({"machine": {"sise": 1}}, "unknown setting 'machine.sise': did you mean 'machine.size'"),
        ({"machin": {"size": 1}}, "unknown table 'machin': did you mean 'machine'"),
        ({"plan": {"eta": [1]}}, "plan.eta must be one value"),
    ],
    ids=str,
)
def test_a_mistake_has_its_line(given: dict[str, Any], line: str) -> None:
    with pytest.raises(SettingError) as caught:
        SCHEMA.read({"machine.size": 1, **SCHEMA.flatten(given)} if "plan" in given else SCHEMA.flatten(given))
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_single_value_is_a_list_of_one() -> None:
    assert SCHEMA.read({"machine.size": 1, "machine.labels": "head"})["machine"].labels == ("head",)


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("lr=0.5", ("lr", 0.5)),
        ("up=topk(0.1) | ans", ("up", "topk(0.1) | ans")),
        ("groups=[{width=0.5}]", ("groups", [{"width": 0.5}])),
        ("names=['a', 'b']", ("names", ["a", "b"])),
        ("empty=", ("empty", "")),
    ],
)
def test_a_pair_has_a_value_of_toml_or_text(text: str, pair: tuple[str, Any]) -> None:
    assert read_pair(text) == pair


def test_what_is_no_pair_or_no_file(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="--set must be KEY=VALUE, got 'lr'"):
        read_pair("lr", "--set")
    with pytest.raises(SettingError, match="cannot be read"):
        read_file(SCHEMA, tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("size =")
    with pytest.raises(SettingError, match=r"bad\.toml is not TOML"):
        read_file(SCHEMA, tmp_path / "bad.toml")
