"""A deployed run's configuration, and what is wrong with one."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from fedpress.common.errors import DataError, SettingError
from fedpress.common.settings import Value
from fedpress.server.deploy.settings import resolve as resolve_all
from fedpress.server.deploy.supervisor import Place, serve
from fedpress.server.keys import init
from fedpress.server.run.configuration import CONFIG, differences
from fedpress.server.run.recorder import CHECKPOINT
from fedpress.settings import RunSettings
from fedpress.settings.deployment import MIN_BODY

ROOT = Path(__file__).parents[2]
LEAST: dict[str, Value] = {"task": "a.b:c", "rounds": 3, "nodes": 4}


def resolve(file: Path | None = None, **given: Any) -> RunSettings:
    return resolve_all({key.replace("_", "-"): value for key, value in given.items()}, file)


def test_the_file_in_the_documentation_is_a_right_one(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "how-to" / "server.md").read_text()
    (text,) = re.findall(r"^```toml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "server.toml").write_text(text)
    settings = resolve(tmp_path / "server.toml", rounds=5)
    assert (settings.strategy.name, settings.server.rounds, settings.simulation.workload) == ("FedAvgM", 5, "digits")
    assert (settings.clients, settings.simulation.clients, settings.deployed) == (40, 40, True)


def test_server_and_task_tables_include_other_sections(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text('[server]\ntask = "a:b"\nnodes = 3\nrounds = 2\nseed = 7\n[task]\nworkload = "watch"\ndepth = 4\n')
    settings = resolve(file)
    assert (settings.deployment.task, settings.clients, settings.run.seed) == ("a:b", 3, 7)
    assert (settings.simulation.workload, dict(settings.task.arguments)) == ("watch", {"depth": 4})


def test_nodes_of_a_round_are_all_unless_it_is_said() -> None:
    assert resolve(**LEAST).server.per_round == 4
    assert resolve(**LEAST, per_round=2).server.per_round == 2


def test_a_task_has_settings_of_its_own() -> None:
    settings = resolve(**LEAST, **{"task.folder": "here", "task.depth": 3})
    assert dict(settings.task.arguments) == {"folder": "here", "depth": 3}
    assert RunSettings.from_config(settings.to_config()) == settings


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"task": "nothing"}, "task must be package.module:object, got 'nothing'"),
        ({"nodes": 0}, "nodes must be at least 1, got 0"),
        ({"per_round": 5}, "per-round must be at most nodes, 4, got 5"),
        ({"max_body": 1}, f"max-body must be at least {MIN_BODY}"),
        ({"rounds": "many"}, "rounds must be a whole number, got 'many'"),
        ({"lr": -1.0}, "lr must be above 0, got -1.0"),
        ({"up": "nonsense"}, "nonsense"),
        ({"deadline": 1.0}, "unknown setting 'deadline'"),
    ],
    ids=str,
)
def test_a_mistake_gets_one_line(given: dict[str, Value], words: str) -> None:
    with pytest.raises(SettingError, match=re.escape(words)) as raised:
        resolve(**{**LEAST, **given})
    assert "\n" not in str(raised.value)


def test_what_has_no_default_is_asked_for() -> None:
    with pytest.raises(SettingError, match="task must be given"):
        resolve(rounds=1)
    with pytest.raises(SettingError, match="rounds must be given"):
        resolve(task="a:b")


def test_a_run_goes_on_with_its_own_settings(tmp_path: Path) -> None:
    config = resolve(**LEAST, out=str(tmp_path), resume=True)  # the first of several tries
    (tmp_path / CHECKPOINT).mkdir()
    (tmp_path / CHECKPOINT / CONFIG).write_text(json.dumps(config.to_config()))
    assert resolve(out=str(tmp_path), resume=True) == config
    assert resolve(out=str(tmp_path), resume=True, timeout=5.0).server.timeout == 5.0
    assert resolve(out=str(tmp_path), resume=True, rounds=9).server.rounds == 9
    with pytest.raises(SettingError, match=r"rounds must be at least 3, .* got 2"):
        resolve(out=str(tmp_path), resume=True, rounds=2)
    with pytest.raises(SettingError, match=r"up must be that of the run in .*"):
        resolve(out=str(tmp_path), resume=True, up="fp16")


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A run's folder, of four nodes, and the file that it was configured by."""
    (tmp_path / "server.toml").write_text('task = "a.b:c"\nrounds = 3\nnodes = 4\n')
    config = resolve(tmp_path / "server.toml", out=str(tmp_path))
    (tmp_path / CHECKPOINT).mkdir()
    (tmp_path / CHECKPOINT / CONFIG).write_text(json.dumps(config.to_config()))
    return tmp_path


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        *(("deployment", "nodes", 2), ("deployment", "nodes", 9), ("deployment", "max-body", MIN_BODY + 1)),
        *(("server", "per-round", 2), ("server", "min-replies", 2), ("server", "timeout", 5.0)),
        *(("server", "max-norm", 7.0), ("server", "weight-multiple", 5.0), ("server", "stored-bytes", 1)),
    ],
)
@pytest.mark.parametrize("in_file", [False, True])
def test_an_operator_changes_a_federation_that_lives(
    begun: Path, section: str, name: str, value: float, in_file: bool
) -> None:
    file = begun / "server.toml"
    given: dict[str, Any] = {} if in_file else {name: value}
    if in_file:
        lines = [line for line in file.read_text().splitlines() if not line.startswith(name)]
        file.write_text("\n".join([f"{name} = {value}", *lines]))
    settings = resolve(file if in_file else None, out=str(begun), resume=True, **given)
    assert getattr(settings.sections[section], name.replace("-", "_")) == value
    assert (
        differences(json.loads((begun / CHECKPOINT / CONFIG).read_bytes()), settings)[f"{section}.{name}"][1] == value
    )


def test_nodes_of_a_round_follow_the_nodes_that_are_left_unless_it_was_said(begun: Path) -> None:
    assert resolve(out=str(begun), resume=True, nodes=2).server.per_round == 2
    smaller = resolve(out=str(begun), resume=True, per_round=3)
    (begun / CHECKPOINT / CONFIG).write_text(json.dumps(smaller.to_config()))
    assert resolve(out=str(begun), resume=True, nodes=9).server.per_round == 3
    with pytest.raises(SettingError, match="per-round must be at most nodes, 2, got 3"):
        resolve(out=str(begun), resume=True, nodes=2)


@pytest.mark.parametrize(("name", "value"), [("up", "none"), ("seed", 5), ("lr", 0.5), ("strategy", "FedAdam")])
@pytest.mark.parametrize("in_file", [False, True])
def test_other_settings_are_refused_by_name(begun: Path, name: str, value: Any, in_file: bool) -> None:
    file = begun / "server.toml"
    if in_file:
        key = "strategy.name" if name == "strategy" else name
        file.write_text(f"{key} = {json.dumps(value)}\n{file.read_text()}")
    given = {} if in_file else {"strategy.name" if name == "strategy" else name: value}
    with pytest.raises(SettingError, match="name" if name == "strategy" else name):
        resolve_all({"out": str(begun), "resume": True, **given}, file)


def test_nothing_is_written_before_all_is_right(tmp_path: Path) -> None:
    config = resolve(**LEAST, out=str(tmp_path / "out"))
    with pytest.raises(SettingError, match=r"loopback alone, got 0\.0\.0\.0: --insecure-anywhere"):
        serve(config, Place("0.0.0.0", 9443, None), lambda _: None)
    with pytest.raises(DataError, match="fedpress keys init"):
        serve(config, Place("127.0.0.1", 9443, tmp_path / "keys"), lambda _: None)
    assert not (tmp_path / "out").exists()


def test_a_run_is_not_overwritten(tmp_path: Path) -> None:
    init(tmp_path / "keys", ["127.0.0.1"])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "result.json").write_text("{}")
    with pytest.raises(SettingError, match="holds a run already"):
        serve(resolve(**LEAST, out=str(tmp_path / "out")), Place("127.0.0.1", 9443, tmp_path / "keys"), lambda _: None)
