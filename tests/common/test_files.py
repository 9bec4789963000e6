"""Laws of the files that all parts share: whole or not there, one process a folder, full disks, logs."""

import json
import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpress.common import files
from fedpress.common.checked_files import read_json, read_tensors, write_json, write_tensors
from fedpress.common.errors import DataError, FolderInUseError, SettingError
from fedpress.common.files import check_folder, create, locked, replace, write_tail
from fedpress.common.logs import FLOWER, LOGGER, LogFile, clean, limit_logs, log_to_file, quiet_flower

VALUE = {"name": "ä", "checksum of": {"checksum": "0" * 64}, "list": [1.5, None, True], "x": {"checksum": "a" * 64}}
ARRAYS = {"w": np.arange(12, dtype=np.float32).reshape(3, 4).T, "n": np.array(7)}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", VALUE)
    read = read_json(tmp_path / "a.json")
    assert {key: value for key, value in read.items() if key != "checksum"} == VALUE
    assert json.loads((tmp_path / "a.json").read_text()) == read
    write_json(tmp_path / "b.json", {"checksum": "b" * 64, **VALUE, "last": {"checksum": "c" * 64}})
    assert read_json(tmp_path / "b.json")["last"] == {"checksum": "c" * 64}
    write_tensors(tmp_path / "a.safetensors", ARRAYS, {"x": '"checksum":"' + "0" * 64 + '"'})
    back = read_tensors(tmp_path / "a.safetensors")
    np.testing.assert_equal(back.arrays, ARRAYS)
    assert back.metadata["x"].startswith('"checksum"')


@settings(deadline=None, max_examples=200)
@given(
    at=st.integers(0, 10**6), how=st.sampled_from(["cut", "flip", "grow"]), name=st.sampled_from(["json", "tensors"])
)
def test_a_changed_file_is_noticed(at: int, how: str, name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("files") / name
    if name == "json":
        write_json(path, VALUE)
    else:
        write_tensors(path, ARRAYS, {"x": "y"})
    whole = path.read_bytes()
    bit, at = 1 << at % 8, at // 8 % len(whole)
    flipped = whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :]
    path.write_bytes({"cut": whole[:at], "flip": flipped, "grow": whole + bytes([at % 256])}[how])
    field = whole.rindex(b'"checksum"') if name == "json" else whole.index(b'"checksum"')
    in_field = how == "flip" and field <= at < field + 90
    try:
        read = read_json(path) if name == "json" else read_tensors(path)
    except DataError:
        return
    assert in_field  # the checksum is not found, and the content is as it was
    if isinstance(read, dict):
        assert {key: read[key] for key in VALUE} == VALUE
    else:
        np.testing.assert_equal(read.arrays, ARRAYS)


def test_files_of_other_programs_have_no_checksum(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": 1}')
    assert read_json(tmp_path / "a.json") == {"a": 1}
    inner = {"a": {"checksum": "f" * 64}}
    (tmp_path / "a.json").write_text(json.dumps(inner))
    assert read_json(tmp_path / "a.json") == inner
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(DataError, match=r"a\.json"):
        read_json(tmp_path / "a.json")


def test_a_full_disk_is_waited_for_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Writes to /dev/full fail as on a full disk; the part file is a link to it until it is removed."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "a.part").symlink_to("/dev/full")
    with log_to_file(tmp_path / "log"):
        replace(tmp_path / "run" / "a", b"x" * 100_000, durable=True)
    assert (tmp_path / "run" / "a").read_bytes() == b"x" * 100_000
    assert str(tmp_path / "run") in (tmp_path / "log").read_text()
    assert str(tmp_path / "run") in capsys.readouterr().err


def test_other_errors_are_not_waited_for(tmp_path: Path) -> None:
    replace(tmp_path / "a", b"old")
    (tmp_path / "a.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space"):
        replace(tmp_path / "a", b"new" * 100_000, wait=False)
    assert (tmp_path / "a").read_bytes() == b"old"
    with pytest.raises(NotADirectoryError):
        replace(tmp_path / "a" / "b", b"")


def test_an_appended_file_has_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tail(tmp_path / "a", b"one\n", 0)

    def room(folder: Path, write: object) -> None:
        with (tmp_path / "a").open("ab") as file:
            file.write(b"tw")  # what a full disk took
        write()  # type: ignore[operator]

    monkeypatch.setattr(files, "when_there_is_room", room)
    write_tail(tmp_path / "a", b"one\ntwo\n", 4)
    assert (tmp_path / "a").read_bytes() == b"one\ntwo\n"
    (tmp_path / "a").write_bytes(b"o")
    write_tail(tmp_path / "a", b"one\ntwo\nthree\n", 8)
    assert (tmp_path / "a").read_bytes() == b"one\ntwo\nthree\n"


def test_a_lock_is_of_one_process_and_ends_with_it(tmp_path: Path) -> None:
    code = f"""
import os, time
from pathlib import Path
from fedpress.common.files import locked
with locked(Path({str(tmp_path)!r}), "run"):
    if os.fork() == 0:
        time.sleep(5)  # a worker outlives the process that forked it
        os._exit(0)
    print("has it", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as other:
        assert other.stdout
        assert other.stdout.readline() == b"has it\n"
        with pytest.raises(FolderInUseError, match=str(tmp_path)), locked(tmp_path, "run"):
            pass
        other.kill()
        other.wait()
        # The fork may not have run yet, and releases the lock when it does.
        with locked(tmp_path, wait=4), pytest.raises(FolderInUseError), locked(tmp_path):  # two threads neither
            pass
        with locked(tmp_path):
            pass


@pytest.mark.parametrize(
    "text",
    ["a\n2026-11-30 02:00:00,000 INFO all is well", "\x1b]0;pwned\x07\x1b[2J", "\u202egnp.exe", "\r\x00", "x" * 10**6],
)
def test_a_text_from_a_node_is_one_short_line(text: str) -> None:
    assert clean(text).isprintable()
    assert len(clean(text)) <= 200
    assert clean("plain ä") == "plain ä"


def test_no_text_passes_for_a_record(tmp_path: Path) -> None:
    with log_to_file(tmp_path / "log"):
        logging.getLogger(LOGGER).warning("node %s failed", "a\n2026-11-30 INFO fine \x1b[2J\r2026")
        logging.getLogger("flwr").warning("two\nlines")
    text = (tmp_path / "log").read_text()
    assert sum(line[0].isdigit() for line in text.splitlines()) == 2
    assert "\x1b" not in text


def test_flower_is_quiet_in_one_thread_alone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, FLOWER)
    inside, left = threading.Event(), threading.Event()

    def other() -> None:
        with quiet_flower():
            inside.set()
            left.wait(60)
            logging.getLogger(FLOWER).info("of the other thread")

    thread = threading.Thread(target=other)
    with quiet_flower():
        thread.start()
        inside.wait(60)
        logging.getLogger(FLOWER).info("within")
        logging.getLogger(FLOWER).error("an error")
    logging.getLogger(FLOWER).info("outside")
    left.set()
    thread.join(60)
    assert caplog.messages == ["an error", "outside"]
    assert logging.getLogger(FLOWER).level == logging.INFO


def test_logs_rotate_also_where_several_write(tmp_path: Path) -> None:
    path = tmp_path / "log"
    logger = logging.getLogger(LOGGER)
    with log_to_file(path):
        limit_logs(10_000, 2)
        other = LogFile(path)
        other.maxBytes, other.backupCount = 10_000, 2

        def write(send: object) -> None:
            for number in range(300):
                send(f"line {number} {'x' * 100}")  # type: ignore[operator]

        record = logging.LogRecord(LOGGER, logging.INFO, "", 0, "other", None, None)
        threads = [
            threading.Thread(target=write, args=(logger.info,)),
            threading.Thread(target=write, args=(lambda _: other.emit(record),)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        other.close()
    found = sorted(each.name for each in tmp_path.iterdir())
    assert found == ["log", "log.1", "log.2"]
    assert all(each.stat().st_size <= 10_400 for each in tmp_path.iterdir())
    assert path.read_text().splitlines()[-1]


def test_a_log_on_a_full_disk_goes_to_standard_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "log").symlink_to("/dev/full")
    handler = LogFile(tmp_path / "log")
    handler.emit(logging.LogRecord(LOGGER, logging.INFO, "", 0, "hello", None, None))
    handler.close()
    said = capsys.readouterr().err
    assert "hello" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("name", ["loop", "loop/further", "~nobody-of-this-name/run"])
def test_a_path_that_leads_nowhere_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    with pytest.raises(SettingError, match=name.split("/", maxsplit=1)[0]):
        check_folder(Path(name))


@pytest.mark.parametrize(
    "write", [lambda path: replace(path, b"x", wait=False), lambda path: create(path, b"x", 0o600)]
)
def test_an_error_names_the_file_that_was_to_be_written(
    write: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files.os, "fdopen", lambda handle, mode: open("/dev/full", mode))  # noqa: PTH123, SIM115
    with pytest.raises(OSError, match="No space") as error:
        write(tmp_path / "a")
    assert error.value.filename == str(tmp_path / "a")
    assert not list(tmp_path.iterdir())
