"""client.toml: options win over it, and a mistake has its line."""

from pathlib import Path

import pytest

from fedpress.client.edge.settings import resolve
from fedpress.common.errors import SettingError


def test_options_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "client.toml"
    file.write_text("state = 'here'\n[polling]\npoll-max = 9\n[limits]\nthreads = 2\nhours = ['22:00-06:00']\n")
    settings = resolve({"threads": 3}, file)
    assert settings.limits.threads == 3
    assert settings.limits.hours == ("22:00-06:00",)
    assert settings.polling.poll_max == 9.0
    assert settings.device.state == "here"
    assert settings.device.app == "fedpress.client.app:app"


def test_tasks_are_a_list() -> None:
    assert resolve({"tasks": ["a.b:c", "d:e"]}).device.tasks == ("a.b:c", "d:e")
    assert resolve({}).device.tasks == ()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("thread = 2", "did you mean 'limits.threads'"),
        ("[limit]\nthreads = 2", "did you mean 'limits'"),
        ("threads = 'two'", "threads must be a whole number, got 'two'"),
        ("threads = [2]", "threads must be a whole number"),
        ("app = 'mine'", "module:object, got 'mine'"),
        ("tasks = ['a:b', 'c']", "module:object, got 'c'"),
        ("poll-min = 5", "poll-max must be at least poll-min, 5.0, got 3.0"),
        ("= 3", "is not TOML"),
    ],
)
def test_a_mistake_has_its_line(text: str, line: str, tmp_path: Path) -> None:
    (tmp_path / "client.toml").write_text(text)
    with pytest.raises(SettingError, match=line):
        resolve({}, tmp_path / "client.toml")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="cannot be read"):
        resolve({}, tmp_path / "none.toml")
