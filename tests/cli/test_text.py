"""Text of any kind is read and written: byte order marks, terminals without a character, paths of any characters."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import fedpress
from fedpress.client.data.folder import read
from fedpress.common.errors import SettingError
from fedpress.common.settings import read_toml
from fedpress.simulations.network.links import read_trace

from .conftest import finish, start

NAMES = ["with space", "naïve-é-文", "100%s [bold] {x}", "two\nlines"]


@pytest.mark.parametrize("name", NAMES)
def test_a_frame_is_shown_on_a_terminal_that_knows_ascii_alone(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = {"wë": np.ones((40, 50), np.float32), "b": np.arange(50, dtype=np.float32)}
    codec = fedpress.codec("deadzone(nmse=0.1) | ans")
    folder = tmp_path / name
    folder.mkdir()
    save_file(update, folder / "model.safetensors")
    update = load_file(folder / "model.safetensors")  # in the file's order
    (folder / "frame").write_bytes(codec.encode(update, {}, np.random.default_rng(0))[0])
    for variable, value in (("PYTHONIOENCODING", "ascii"), ("LANG", "C"), ("LC_ALL", "C")):
        monkeypatch.setenv(variable, value)
    layout = ("--layout", str(folder / "model.safetensors"))
    shown = finish(start("inspect", str(folder / "frame"), *layout, folder=tmp_path))
    assert (shown.code, shown.err) == (0, "")
    failed = finish(start("inspect", str(folder / "missing"), folder=tmp_path))
    assert failed.code == 2
    assert len(failed.err.splitlines()) == 1


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("name", NAMES)
def test_text_files_are_read_with_and_without_a_byte_order_mark(name: str, mark: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    settings, trace = folder / "settings.toml", folder / "trace.csv"
    settings.write_text(f'{mark}[run]\nout = "é"\n', encoding="utf-8")
    assert read_toml(settings) == {"run": {"out": "é"}}
    trace.write_text(f"{mark}seconds,down,up\n0,1000,1000\n10,1000,1000\n", encoding="utf-8")
    assert read_trace(trace).down == 1000
    data = folder / "data"
    for number, kind in enumerate(["ähnlich", "other"]):
        (data / kind).mkdir(parents=True)
        np.save(data / kind / "x.npy", np.full((3, 2), number, np.float32))
    (data / "classes.txt").write_text(f"{mark}ähnlich\nother\n", encoding="utf-8")
    assert sorted(set(read(str(data)).y.tolist())) == [0, 1]


def test_standard_streams_may_be_closed(tmp_path: Path) -> None:
    """As a supervisor may start it: no file of the run gets their descriptors, and nothing fails without them."""
    words = "simulate --rounds 1 --clients 2 --per-round 2 --workers 1 --out run"
    line = f"exec {sys.executable} -m fedpress {words} <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", line], cwd=tmp_path, check=False).returncode == 0
    assert (tmp_path / "run" / "model.safetensors").stat().st_size > 0


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "latin-1"])
def test_a_settings_file_in_another_encoding_is_named(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text('[run]\nout = "é"\n', encoding=encoding)
    with pytest.raises(SettingError, match=r"UTF-8") as raised:
        read_toml(path)
    assert str(path) in str(raised.value)
