"""Laws of a run's settings: whole and typed in every process, whatever carries them."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from fedpress.common.errors import SettingError
from fedpress.common.settings import key_of
from fedpress.extensions.mixed_fleet.settings import GroupSettings, MixedFleetSettings
from fedpress.settings import RunSettings
from fedpress.settings.run import SHORT
from fedpress.settings.tables import commented, rows
from fedpress.simulations.settings import resolve, simulation_schema
from fedpress.simulations.workloads import WORKLOADS

LEAST: dict[str, Any] = {"server.rounds": 3, "server.per-round": 2, "simulation.clients": 10}
GROUPS = '[{"share": 0.5}, {"width": 0.5, "share": 0.5}]'


def test_a_configuration_is_parsed_once_and_is_its_own_key() -> None:
    settings = RunSettings.from_config(LEAST)
    assert settings is RunSettings.from_config(dict(LEAST))
    assert hash(settings) == hash(RunSettings.read(LEAST))


def test_flower_and_json_carry_all_of_it() -> None:
    settings = RunSettings.from_config(
        {**LEAST, "mixed-fleet.groups": GROUPS, "strategy.eta": 0.5, "server.exclude": "a"}
    )
    assert settings.extension(MixedFleetSettings).groups == (
        GroupSettings(share=0.5),
        GroupSettings(width=0.5, share=0.5),
    )
    config = settings.to_config()
    assert all(type(value) in (str, int, float, bool) for value in config.values())
    assert RunSettings.from_config(json.loads(json.dumps(config))) == settings
    assert RunSettings.from_config({**config, "another-app": 3}) == settings


def test_a_few_settings_of_a_result_can_be_read_without_their_section() -> None:
    settings = resolve({"workload": "watch", "rounds": 7})
    result = settings.to_result()
    assert (result["workload"], result["rounds"], result["server.rounds"]) == ("watch", 7, 7)
    assert set(result) == {*settings.to_config(), *SHORT}
    assert RunSettings.from_config(result) == settings


def test_every_setting_has_a_help_text() -> None:
    for key, _, _, _, text in rows(RunSettings.schema()):
        assert text, key
        assert not text.endswith("."), key
        assert "_" not in key, key


@pytest.mark.parametrize("workload", WORKLOADS)
def test_the_file_of_defaults_changes_nothing(workload: str, tmp_path: Path) -> None:
    settings = resolve({"workload": workload})
    (tmp_path / "run.toml").write_text(commented(settings, simulation_schema()))
    assert resolve({}, tmp_path / "run.toml") == settings


def test_the_bundle_s_configuration_is_that_of_the_default_run() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    config = project["tool"]["flwr"]["app"]["config"]
    flat = RunSettings.schema().flatten(config)
    expected = resolve({"workload": "digits", "out": "fedpress-run"}).to_config()
    assert flat == expected


def test_bare_keys_of_common_settings_are_unambiguous() -> None:
    schema = RunSettings.schema()
    for key in (
        *SHORT,
        "lr",
        "momentum",
        "batch-size",
        "local-epochs",
        "partition",
        "alpha",
        "holdout",
        "out",
        "engine",
    ):
        assert schema.find(key).endswith(f".{key}")
    with pytest.raises(SettingError, match="ambiguous"):
        schema.find("name")


def test_a_device_reads_settings_without_what_it_does_not_run() -> None:
    code = "import sys, fedpress.settings; print(sorted({'torch', 'flwr', 'fedpress.server'} & set(sys.modules)))"
    code = f"{code}; fedpress.settings.RunSettings.schema(); print(sorted({{'torch', 'flwr'}} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["[]", "[]"]


def test_fields_are_keys() -> None:
    assert key_of("local_epochs") == "local-epochs"
