"""What is on the disk is whole at every moment, and a message counts once wherever the process is killed."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpress.client.edge.journal import Journal
from fedpress.common import files
from fedpress.common.errors import DataError, FolderInUseError
from fedpress.flower.mail import IncomingMessage, OutgoingReply

RUN, SERIES = 7, 9
WORK = IncomingMessage("m1", RUN, b"head", {"a": b"1" * 10, "b": b""})
LETTER = OutgoingReply("m1", RUN, b"answer", {"c": b"2" * 100_000}, 0.5)


def a_state(number: int) -> RecordDict:
    arrays = {"w": Array("float32", (50_000,), "numpy.ndarray", bytes([number % 256]) * 200_000)}
    config = {"turn": number, "name": b"\0\1", "list": [1.5, 2.0], "text": "ä", "yes": True}
    return RecordDict({"arrays": ArrayRecord(arrays), "config": ConfigRecord(config), "m": MetricRecord({"x": 0.1})})


@pytest.fixture
def journal(tmp_path: Path):
    made = Journal(tmp_path)
    yield made
    made.close()


def test_a_state_comes_back_as_it_was(journal: Journal) -> None:
    journal.commit(SERIES, a_state(3), LETTER)
    assert journal.load(SERIES) == a_state(3)
    assert journal.load(SERIES + 1) == RecordDict()


def test_state_and_reply_are_one_file(journal: Journal) -> None:
    journal.take(WORK)
    journal.commit(SERIES, a_state(3), LETTER)
    assert journal.letter() == LETTER
    assert journal.work() == WORK  # the reply comes first, and settles it
    journal.done("m1")
    assert journal.letter() is None
    assert journal.work() is None
    assert journal.load(SERIES) == a_state(3)


def test_a_later_message_without_a_state_does_not_bring_the_old_reply_back(journal: Journal, tmp_path: Path) -> None:
    journal.commit(SERIES, a_state(3), LETTER)
    journal.done("m1")
    journal.done("m2")  # answered with an error: nothing was committed
    journal.close()
    again = Journal(tmp_path)
    assert again.letter() is None
    again.close()


def test_a_message_is_there_with_and_without_its_objects(journal: Journal) -> None:
    head = IncomingMessage("m2", RUN, b"head")
    journal.take(head)
    assert journal.work() == head
    journal.take(IncomingMessage("m2", RUN, b"head", {}))
    assert journal.work() == IncomingMessage("m2", RUN, b"head", {})
    journal.drop()
    assert journal.work() is None


def test_states_of_old_series_go(journal: Journal) -> None:
    for series in range(10):
        journal.commit(series, a_state(series), LETTER)
    assert len(list(journal.folder.glob("state-*"))) == 4
    assert journal.load(9) == a_state(9)


def test_nobody_else_can_read_it(journal: Journal) -> None:
    journal.commit(SERIES, a_state(3), LETTER)
    journal.take(WORK)
    for path in journal.folder.iterdir():
        assert path.stat().st_mode & 0o077 == 0


@settings(deadline=None, max_examples=50)
@given(at=st.integers(0, 10**7), how=st.sampled_from(["cut", "flip", "grow"]))
def test_a_broken_file_is_noticed_and_set_aside(at: int, how: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    journal = Journal(tmp_path_factory.mktemp("state"))
    journal.commit(SERIES, a_state(3), LETTER)
    path = journal.folder / f"state-{SERIES}"
    data = bytearray(path.read_bytes())
    at %= len(data)
    if how == "flip":
        data[at] ^= 0x40
    path.write_bytes(data[:at] if how == "cut" else data + b"x" if how == "grow" else data)
    with pytest.raises(DataError, match="not what was written"):
        journal.load(SERIES)
    assert journal.load(SERIES) == RecordDict()
    assert journal.letter() is None
    journal.close()


def test_a_folder_in_the_place_of_a_file_is_set_aside(journal: Journal) -> None:
    for name in (f"state-{SERIES}", "inbox", "usage"):
        (journal.folder / name / "precious").mkdir(parents=True)
    with pytest.raises(DataError, match="set aside"):
        journal.load(SERIES)
    with pytest.raises(DataError, match="set aside"):
        journal.work()
    assert journal.noted("usage") == {}
    assert (journal.load(SERIES), journal.work()) == (RecordDict(), None)
    assert len(list(journal.folder.rglob("precious"))) == 3


def test_two_clients_cannot_share_a_folder_and_a_dead_one_leaves_no_lock(tmp_path: Path) -> None:
    code = f"""
import time
from pathlib import Path
from fedpress.client.edge.journal import Journal
journal = Journal(Path({str(tmp_path)!r}))
print("has it", flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as other:
        assert other.stdout
        assert other.stdout.readline() == b"has it\n"
        with pytest.raises(FolderInUseError):
            Journal(tmp_path)
        other.send_signal(signal.SIGKILL)
        other.wait()
    Journal(tmp_path).close()


@pytest.mark.parametrize("step", ["open", "write", "fsync", "rename"])
def test_on_a_full_disk_the_old_state_stays(step: str, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    journal.commit(SERIES, a_state(3), LETTER)
    before = {path.name: path.read_bytes() for path in journal.folder.iterdir()}

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        if step == "open":
            patch.setattr(os, "open", full)
        elif step == "write":
            patch.setattr(files, "open_with", lambda *_, **__: Path("/dev/full").open("wb"))  # noqa: SIM115
        elif step == "fsync":
            patch.setattr(os, "fsync", full)
        else:
            patch.setattr(Path, "replace", full)
        with pytest.raises(OSError, match="No space"):
            journal.commit(SERIES, a_state(4), OutgoingReply("m2", RUN, b"", {}, 0.0))
    assert {path.name: path.read_bytes() for path in journal.folder.iterdir()} == before
    assert journal.load(SERIES) == a_state(3)


@pytest.mark.parametrize("after", range(1, 9))
def test_killed_within_a_write_the_folder_holds_the_old_or_the_new(after: int, tmp_path: Path) -> None:
    """A child dies at the n-th call into the system that a commit makes; what it leaves is one of the two, whole."""
    code = f"""
import os, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_journal import LETTER, SERIES, a_state
from fedpress.client.edge.journal import Journal, OutgoingReply
journal = Journal(Path({str(tmp_path)!r}))
journal.commit(SERIES, a_state(1), LETTER)
left = [{after}]
def hook(event, _):
    if event in ("open", "os.rename", "os.remove") or event == "fsync":
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), 9)
fsync = os.fsync
def traced(handle):
    sys.audit("fsync")
    fsync(handle)
    sys.audit("fsync")
os.fsync = traced
sys.addaudithook(hook)
journal.commit(SERIES, a_state(2), OutgoingReply("m2", 7, b"", {{}}, 0.0))
"""
    subprocess.run([sys.executable, "-c", code], check=False, timeout=60)
    journal = Journal(tmp_path)
    state, letter = journal.load(SERIES), journal.letter()
    assert letter is not None
    assert (state, letter.to) in ((a_state(1), "m1"), (a_state(2), "m2"))
    assert not list(tmp_path.glob("*.part"))
    journal.close()
