"""A federation outlives odd devices: a full disk, a wrong clock, another model or version, a crowd."""

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from .federation import Federation, wait_for

pytestmark = pytest.mark.slow
Make = Callable[..., Federation]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, b"size=16m") != 0:
        pytest.skip(f"no file system can be mounted here: {os.strerror(ctypes.get_errno())}")
    yield folder
    assert libc.umount2(os.fsencode(folder), 2) == 0


def fill(folder: Path) -> Path:
    """Leave no byte free."""
    path = folder / "ballast"
    with path.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 10, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))
    return path


def test_a_client_s_disk_is_full(small_disk: Path, make_federation: Make) -> None:
    federation = make_federation(nodes=2, rounds=6, settings={"timeout": 20.0})
    federation.state("node-0").symlink_to(small_disk)
    federation.start_all()
    federation.wait_rounds(2)
    ballast = fill(small_disk)
    federation.wait_rounds(4)
    ballast.unlink()
    if not federation.clients["node-0"].alive:
        federation.start_client("node-0")
    federation.finish()


def test_the_server_s_disk_is_full(small_disk: Path, make_federation: Make) -> None:
    """It waits, and says for which folder; with free space it continues where it was."""
    federation = make_federation(nodes=2, rounds=6)
    federation.out.symlink_to(small_disk)
    federation.start_all()
    federation.wait_rounds(2)
    ballast = fill(small_disk)
    wait_for(lambda: "is on a full disk" in federation.log, "the server to notice that its disk is full")
    ballast.unlink()
    federation.finish()


@pytest.mark.parametrize("days", [-1, 1])
def test_a_clock_that_is_a_day_off(days: int, make_federation: Make) -> None:
    """Its node is refused, in a line that says why; the run continues without it, and with it once its clock is set."""
    federation = make_federation(nodes=3, rounds=4, settings={"per-round": 2, "nodes": 2})
    federation.start_server()
    federation.wait_listening()
    for name in federation.names[:2]:
        federation.start_client(name)
    wrong = federation.start_client("node-2", module="skewed", more={"FEDPRESS_PROOF_DAYS": str(days)})
    federation.finish()
    assert "clock" in wrong.log.read_text()
    assert federation.log.count("clock of node-2") == 1


def test_a_client_with_another_model(make_federation: Make) -> None:
    federation = make_federation(nodes=3, rounds=4)
    federation.start_server()
    federation.wait_listening()
    for name in federation.names[:2]:
        federation.start_client(name)
    federation.start_client("node-2", app="proofapps:other")
    result = federation.finish()
    assert all(row["clients"] == 2 for row in result["rounds"])
    assert "node-2" in federation.log or "node 2" in federation.log


@pytest.mark.parametrize("package", ["fedpress", "flwr"])
def test_a_client_of_another_version(package: str, make_federation: Make) -> None:
    """Frames and messages say what they are: it takes part. That versions differ is for `fedpress doctor` to say."""
    federation = make_federation(nodes=2, rounds=3)
    federation.start_server()
    federation.wait_listening()
    federation.start_client("node-0", module="skewed", more={"FEDPRESS_PROOF_VERSION": package})
    federation.start_client("node-1")
    result = federation.finish()
    assert all(row["clients"] == 2 for row in result["rounds"])


def test_a_client_whose_state_is_of_another_layout(make_federation: Make) -> None:
    """Its state of another federation, with another model, is of no use: it gets a key frame and continues."""
    first = make_federation(nodes=2, rounds=2)
    first.start_all()
    first.finish()
    second = make_federation(nodes=2, rounds=3, settings={"task": "proofapps:wide"})
    second.state("node-0").symlink_to(first.state("node-0"))
    second.start_all()
    second.finish()


def test_forty_that_arrive_together(make_federation: Make) -> None:
    if psutil.virtual_memory().available < 16 << 30:
        pytest.skip("forty clients take up to 16 GB")
    federation = make_federation(nodes=40, rounds=2, settings={"timeout": 600.0})
    federation.start_server()
    federation.wait_listening()
    for name in federation.names:
        federation.start_client(name)
    result = federation.finish(1800)
    assert all(row["clients"] == 40 for row in result["rounds"])
