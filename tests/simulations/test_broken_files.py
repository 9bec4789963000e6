"""A changed bit, a cut or an added byte in any file of a run is noticed, and the run ends with a right model."""

import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from fedpress.common.checked_files import read_checked, read_json, read_tensors
from fedpress.common.errors import DataError, SettingError
from fedpress.common.files import locked
from fedpress.compression import Layout
from fedpress.server.checkpointing import recovery
from fedpress.server.downlink.model_store import ModelStore
from fedpress.server.run.recorder import Recorder
from fedpress.simulations.completed_run import Run
from fedpress.simulations.engine.blob_store import Blobs
from fedpress.simulations.postprocess.run_folder import read_folder
from fedpress.simulations.run import run, settings_of

ROUNDS = 4
SETTINGS = {
    **{"rounds": ROUNDS, "clients": 6, "per-round": 3, "seed": 3, "workers": 1, "local-epochs": 1},
    **{
        "up": "ef | topk(0.05) | ans",
        "down": "lowrank(nmse=0.3) | ans",
        "strategy.name": "FedAdam",
        "strategy.eta": 0.01,
    },
}
NOT_READ = {"run.log"}
WEIGHTS = np.arange(9000, dtype=np.float32)
Damage = Callable[[bytes, int], bytes]


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :]


def cut(data: bytes, at: int) -> bytes:
    return data[:at]


def lengthen(data: bytes, at: int) -> bytes:
    return data + bytes([at % 256])


DAMAGES = (flip, cut, lengthen)


class Stop(Exception):
    """A crash."""


def start(folder: Path, **more: object) -> bytes:
    """Run, or resume, and return the final model's file."""
    result = run(settings_of({**SETTINGS, "out": str(folder), **more}))
    assert [row["round"] for row in result["rounds"]] == list(range(1, ROUNDS + 1))
    clients = Run(folder, result).clients
    assert sum(int(row["up_frame"]) for row in clients) == result["totals"]["uplink_bytes"]
    return (folder / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A run that ended, and its model."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, start(folder)


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed after round 3 was recorded, and before its checkpoint."""
    folder = tmp_path_factory.mktemp("crashed") / "run"
    write = Recorder.__call__

    def stop(recorder: Recorder, done: object) -> None:
        write(recorder, done)
        if getattr(done, "number", 0) == ROUNDS - 1:
            raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Recorder, "__call__", stop)
        with pytest.raises(Stop):
            start(folder)
    return folder


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


SOME = [
    *[("result.json", cut, 0.5), ("clients.csv", flip, 0.9), ("model.safetensors", flip, 0.5)],
    *[("checkpoint/config.json", flip, 0.5), ("checkpoint/round-000002.safetensors", flip, 0.7)],
    *[("checkpoint/versions/", flip, 0.5), ("checkpoint/clients/", flip, 0.5)],
]  # the beginnings of files' names, a damage, and where it is


def check_damage(crashed: Path, expected: bytes, folder: Path, name: str, damage: Damage, where: float) -> None:
    """Resume a run with one damaged file: it ends with the model of an undamaged run, or says what it did without."""
    shutil.copytree(crashed, folder)
    path = folder / name
    data = path.read_bytes()
    path.write_bytes(damage(data, min(len(data) - 1, int(where * len(data)))))
    model = start(folder, resume=True)
    log = (folder / "run.log").read_text()
    said = path.name in log or f"{path.parent} are missing or not what was written" in log
    assert said or model == expected, (name, damage.__name__, where)
    if path.parent.name not in ("versions", "clients"):
        assert model == expected, (name, damage.__name__, where)
    shutil.rmtree(folder)


@pytest.mark.parametrize(("begin", "damage", "where"), SOME)
def test_a_resumed_run_with_a_broken_file(
    begin: str, damage: Damage, where: float, crashed: Path, whole: tuple[Path, bytes], tmp_path: Path
) -> None:
    name = next(name for name in files(crashed) if name.startswith(begin))
    check_damage(crashed, whole[1], tmp_path / "run", name, damage, where)


def kinds(folder: Path) -> list[str]:
    """Files of the run, one of each that its reader treats alike."""
    return list(
        {(Path(name).parent, Path(name).suffix): name for name in files(folder) if name not in NOT_READ}.values()
    )


@pytest.mark.slow
def test_a_resumed_run_with_any_kind_of_broken_file(crashed: Path, whole: tuple[Path, bytes], tmp_path: Path) -> None:
    dice = random.Random(0)
    for name in kinds(crashed):
        for damage in DAMAGES:
            for where in (0.0, dice.random()):
                check_damage(crashed, whole[1], tmp_path / "run", name, damage, where)


def is_intact(path: Path) -> bool:
    """Return whether a resumed run takes a file for what was written."""
    match path.parent.name:
        case "clients":
            return Blobs(path.parent, lasting=True).is_intact(path.name)
        case "versions":
            path.with_name(f"broken-{path.name}").unlink(missing_ok=True)
            return bytes.fromhex(path.stem) in ModelStore(Layout.of({"w": WEIGHTS}), path.parent, 1 << 30)
    try:
        read_tensors(path) if path.suffix == ".safetensors" else read_json(path)
    except DataError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize("damage", [flip, cut])
def test_damage_anywhere_is_noticed(crashed: Path, tmp_path: Path, damage: Damage) -> None:
    """At every byte of small files, and at a random one of each of 2,000 parts of large files."""
    run = tmp_path / "run"
    shutil.copytree(crashed, run)
    versions = run / "checkpoint" / "versions"
    shutil.rmtree(versions)
    versions.mkdir()
    ModelStore(Layout.of({"w": WEIGHTS}), versions, 1 << 30).put({"w": WEIGHTS})
    dice = random.Random(2)
    for name in sorted(set(files(run)) - NOT_READ - {"clients.csv"}):  # a resumed run writes clients.csv anew
        path = run / name
        data = path.read_bytes()
        assert is_intact(path)
        step = 1 + len(data) // 2000
        missed = []
        for at in (min(len(data) - 1, at + dice.randrange(step)) for at in range(0, len(data), step)):
            path.write_bytes(damage(data, at))
            if is_intact(path):
                missed.append(at)
        path.write_bytes(data)
        field = data.find(b'"checksum"')  # of its own name or quotes a bit is not noticed, and changes nothing
        assert all(0 <= field <= at < field + 90 for at in missed), (name, missed)


def test_the_newest_checkpoint_and_a_file_of_another_origin(
    crashed: Path, whole: tuple[Path, bytes], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(crashed, folder)
    versions = folder / "checkpoint" / "versions"
    (versions / "notes.model").write_text("?")
    for path in versions.glob("[0-9a-f]*.model"):  # what a power cut leaves of files that were not synchronised
        path.write_bytes(b"")
    (folder / "checkpoint" / "config.json").write_bytes(b"")
    (folder / "result.json").write_bytes(b"{")
    start(folder, resume=True)
    log = (folder / "run.log").read_text()
    assert "broken-notes.model" in log
    assert "broken-result.json" in log
    assert (folder / "checkpoint" / "broken-config.json").exists()


@pytest.mark.parametrize("name", ["result.json", "clients.csv", "model.safetensors", "run.log", "personal.csv"])
def test_a_folder_in_place_of_a_file_is_named_before_the_first_round(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(SettingError, match=name):
        run(settings_of({**SETTINGS, "out": str(tmp_path)}))
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_no_bit_of_a_result_or_model_changes_unnoticed(whole: tuple[Path, bytes], tmp_path: Path) -> None:
    """Whoever reads a finished run notices: `export`, `shrink`, `distil`, a run that starts from its model."""
    folder = tmp_path / "run"
    shutil.copytree(whole[0], folder)
    dice = random.Random(1)
    for name in ("result.json", "model.safetensors"):
        data = (folder / name).read_bytes()
        missed = []
        for at in [dice.randrange(8 * len(data)) for _ in range(300)]:
            (folder / name).write_bytes(data[: at // 8] + bytes([data[at // 8] ^ 1 << at % 8]) + data[at // 8 + 1 :])
            try:
                read_checked(folder / name)
            except DataError:
                continue
            missed.append(at // 8)
        # Only a bit of the checksum's own name or quotes is not noticed, and it changes nothing.
        field = data.index(b'"checksum"')
        assert all(field <= at < field + 90 for at in missed)
        (folder / name).write_bytes(flip(data, len(data) // 2))
        with pytest.raises(DataError, match=name):
            read_folder(folder)
        (folder / name).write_bytes(data)


def test_other_versions_are_named(
    crashed: Path, whole: tuple[Path, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(crashed, tmp_path / "run")
    other = {**recovery.versions(), "numpy": "0.9", "torch": "0.1"}
    monkeypatch.setattr(recovery, "versions", lambda: other)
    assert start(tmp_path / "run", resume=True) == whole[1]
    (line,) = [line for line in (tmp_path / "run" / "run.log").read_text().splitlines() if "other versions" in line]
    assert "numpy" in line
    assert "torch" in line
    assert "flwr" not in line


COMMAND = [sys.executable, "-m", "fedpress", "simulate", "--clients", "6", "--per-round", "3", "--workers", "1"]


def test_a_folder_has_one_process(tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "run")]
    first = subprocess.Popen([*COMMAND, "--rounds", "100000", *out], stderr=subprocess.PIPE, text=True)
    assert first.stderr
    next(line for line in first.stderr if line.startswith("round 1/"))
    for more in (["--resume"], ["--force"]):
        second = subprocess.run([*COMMAND, *out, *more], capture_output=True, text=True, check=False)
        assert second.returncode == 1
        (line,) = second.stderr.splitlines()
        assert str(tmp_path / "run") in line
        assert "in use" in line
    next(first.stderr)  # the first goes on
    first.kill()
    first.wait()
    first.stderr.close()
    with locked(tmp_path / "run"), locked(tmp_path / "run" / "checkpoint"):  # a killed process leaves no lock
        pass


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 32 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32m", "none", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this user may not mount a disk")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_is_waited_for(small_disk: Path, whole: tuple[Path, bytes]) -> None:
    settings = {**SETTINGS, "out": str(small_disk / "run")}
    code = f"from fedpress.simulations.run import run, settings_of; run(settings_of({settings!r}))"
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(int(33.4e6)))
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr
            line = next(line for line in process.stderr if str(small_disk / "run") in line)
            assert "full" in line
            ballast.unlink()
            process.communicate(timeout=120)
            assert process.returncode == 0
        finally:
            process.kill()
    assert (small_disk / "run" / "model.safetensors").read_bytes() == whole[1]
