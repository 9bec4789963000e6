"""A device's own data: what is right is read to the same tensors, what is wrong gets one line that says what."""

import re
import sqlite3
import sys
import tracemalloc
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import nn

from fedpress.client.data import check, read
from fedpress.client.data.examples import examples
from fedpress.common.errors import DataError, FedpressError, SettingError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 3, 4)).astype(np.float32)
Y = RNG.integers(0, 5, 20)


@pytest.fixture(autouse=True)
def _anew():
    read.cache_clear()
    yield
    read.cache_clear()


def same(spec: str, x: np.ndarray = X, y: np.ndarray = Y) -> bool:
    found = read(spec)
    assert found.x.dtype == torch.float32
    assert found.y.dtype == torch.int64
    return np.array_equal(found.x.numpy(), x) and np.array_equal(found.y.numpy(), y)


def base(path: Path, columns: str, rows: list[tuple[object, ...]]) -> Path:
    file = path / "d.sqlite"
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(f'CREATE TABLE "my ""table" ({columns})')
        connection.executemany(f'INSERT INTO "my ""table" VALUES ({", ".join("?" * len(rows[0]))})', rows)
    return file


TABLE = "table=my+%22table"


def test_one_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=X, y=Y)
    assert same(f"folder:{tmp_path}")


def test_one_safetensors_file(tmp_path: Path) -> None:
    save_file({"x": X.astype(np.float64), "y": Y}, tmp_path / "data.safetensors")
    assert same(f"folder:{tmp_path}")


@pytest.mark.parametrize("named", [False, True])
def test_a_sub_folder_a_class(named: bool, tmp_path: Path) -> None:
    words = ["cat", "dog", "hen", "cow", "owl"]
    if named:
        (tmp_path / "classes.txt").write_text("\n".join(words) + "\n")
    order = sorted(range(5), key=lambda label: words[label] if named else str(label))
    for label in order:
        part = tmp_path / (words[label] if named else str(label))
        part.mkdir()
        np.savez(part / "first.npz", x=X[label == Y][:1])
        for at, example in enumerate(X[label == Y][1:]):
            np.save(part / f"more{at:03}.npy", example)
    at = [np.flatnonzero(label == Y) for label in order]
    at = np.concatenate(at)
    assert same(f"folder:{tmp_path}", X[at], Y[at])


def test_a_table_of_blobs(tmp_path: Path) -> None:
    rows = [(x.tobytes(), int(y)) for x, y in zip(X, Y, strict=True)]
    file = base(tmp_path, "image BLOB, label INTEGER", rows)
    assert same(f"sqlite:{file}?{TABLE}&x=image&y=label&shape=3,4")
    assert same(f"sqlite:{file}?{TABLE}&x=image&y=label", X.reshape(20, 12))
    assert same(f"sqlite:{file}?{TABLE}&x=image&y=label&newest=4", X.reshape(20, 12)[:-5:-1], Y[:-5:-1])


def test_a_table_of_numbers(tmp_path: Path) -> None:
    file = base(tmp_path, "a, b, y", [(float(x), 2, int(y)) for x, y in zip(X[:, 0, 0], Y, strict=True)])
    assert same(f"sqlite:{file}?{TABLE}&x=a,b", np.stack([X[:, 0, 0], np.full(20, 2, np.float32)], 1))


def test_bytes_are_scaled(tmp_path: Path) -> None:
    bytes_ = RNG.integers(0, 256, (20, 6)).astype(np.uint8)
    file = base(tmp_path, "x BLOB, y", [(x.tobytes(), int(y)) for x, y in zip(bytes_, Y, strict=True)])
    assert same(f"sqlite:{file}?{TABLE}&dtype=uint8", bytes_.astype(np.float32) / 255)


def test_a_large_table_is_streamed(tmp_path: Path) -> None:
    row = bytes(4 * 1000)
    file = base(tmp_path, "x BLOB, y", [(row, 0)] * 4000)
    tracemalloc.start()
    found = read(f"sqlite:{file}?{TABLE}")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.x.nbytes == 16_000_000
    assert peak < 1.1 * 16_000_000 + 1_000_000


def test_an_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "import numpy as np\ndef f():\n    return [[0.5], [1.0]], [0, 1]\nclass C:\n    x, y = f()\nc = C()\n"
    (tmp_path / "edge_test_source.py").write_text(text + "def bad():\n    raise ValueError('broken')\nnone = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("f", "c", "C"):
        assert same(f"python:edge_test_source:{name}", np.array([[0.5], [1.0]]), np.array([0, 1]))
    for name, error, line in (
        ("bad", DataError, "failed: ValueError: broken"),
        ("none", DataError, "x and y"),
        ("nothing", SettingError, "cannot be imported"),
    ):
        with pytest.raises(error, match=line):
            read(f"python:edge_test_source:{name}")
    del sys.modules["edge_test_source"]


def test_what_is_held_out_is_a_share_and_the_same_each_time() -> None:
    local = examples("here", X, Y)
    train, held = local.split(0.25, 1, 2)
    assert (len(train), len(held)) == (15, 5)
    assert torch.equal(local.split(0.25, 1, 2)[1].x, held.x)
    assert not torch.equal(local.split(0.25, 1, 3)[1].x, held.x)
    whole, nothing = local.split(0.0, 1, 2)
    assert (len(whole), len(nothing)) == (20, 0)


def test_the_model_says_whether_it_fits() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
    model.train()
    examples("here", X, Y).fits(model, "cpu")
    assert model.training
    with pytest.raises(DataError, match=r"here: the model takes no x of shape \(3, 3\)"):
        examples("here", X[:, :, :3], Y).fits(model, "cpu")
    with pytest.raises(DataError, match=r"y must be in 0\.\.4, the model's classes, got 7"):
        examples("here", X, Y + (Y.max() == Y) * (7 - Y.max())).fits(model, "cpu")
    with pytest.raises(DataError, match="got -1"):
        examples("here", X, Y - 1 - Y.min()).fits(model, "cpu")


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        ("photos", "data must be folder:PATH"),
        ("folder:", "data must be folder:PATH"),
        ("floder:/x", "did you mean 'folder'"),
        ("sqlite:FILE", "must name its table"),
        ("sqlite:FILE?table=t&colour=red", "unknown option of sqlite data 'colour'"),
        (f"sqlite:FILE?{TABLE}&dtype=f4", "unknown dtype"),
        (f"sqlite:FILE?{TABLE}&shape=a", "must be an integer of at least 0, got 'a'"),
        (f"sqlite:FILE?{TABLE}&newest=-1", "must be an integer of at least 0, got '-1'"),
        ("sqlite:FILE?table=none", "there is no such table"),
        (f"sqlite:FILE?{TABLE}&x=imagee", "did you mean 'image'"),
        (f"sqlite:FILE?{TABLE}&x=image&y=text", "row 1: text must be an integer, the class, got 'a'"),
        (f"sqlite:FILE?{TABLE}&x=text&y=label", "row 1: x must be like the rows before it: it must be 1 numbers"),
        (
            f"sqlite:FILE?{TABLE}&x=image&y=label",
            "row 2: x must be like the rows before it: it must be a BLOB of 4 bytes",
        ),
        (f"sqlite:FILE?{TABLE}&x=image,text&y=label", "one column of BLOBs or several of numbers"),
        ("sqlite:NONE?table=t", "is no file"),
        ("sqlite:TEXT?table=t", "file is not a database"),
        ("folder:NONE", "is no folder"),
        ("folder:EMPTY", "a sub-folder for each class, got 0 files"),
        ("folder:WORDS", "classes.txt must list all classes"),
        ("folder:BROKEN", "is no .npz file"),
        ("folder:LACKS", "y is missing"),
        ("folder:PICKLE", "is no array"),
        ("folder:MIXED", "must hold float32 of shape (2,), as the files before it, got float64 of shape (3,)"),
        ("folder:FLOATS", "y must be integers, the classes, got float64"),
        ("folder:COUNT", "x has 3 examples and y 2"),
        ("folder:NAN", "x must be finite"),
    ],
)
def test_each_way_to_be_wrong_has_its_line(spec: str, line: str, tmp_path: Path) -> None:
    file = base(tmp_path, "image, label, text", [(b"1234", 0, "a"), (b"12345", 1, "b")])
    (tmp_path / "TEXT").write_text("no database, but long enough to be looked at" * 20)
    for name in ("EMPTY", "WORDS/cat", "BROKEN", "LACKS", "PICKLE/0", "MIXED/0", "FLOATS", "COUNT", "NAN"):
        (tmp_path / name).mkdir(parents=True)
    np.save(tmp_path / "WORDS/cat/1.npy", X[0])
    (tmp_path / "BROKEN/d.npz").write_bytes(b"PK and no more")
    np.savez(tmp_path / "LACKS/d.npz", x=X)
    np.save(tmp_path / "PICKLE/0/1.npy", np.array([{}]), allow_pickle=True)
    np.save(tmp_path / "MIXED/0/1.npy", np.zeros(2, np.float32))
    np.save(tmp_path / "MIXED/0/2.npy", np.zeros(3))
    np.savez(tmp_path / "FLOATS/d.npz", x=X, y=Y + 0.5)
    np.savez(tmp_path / "COUNT/d.npz", x=X[:3], y=Y[:2])
    np.savez(tmp_path / "NAN/d.npz", x=np.array([[1.0], [np.nan]]), y=Y[:2])
    words = re.sub(r"\b[A-Z]{3,}\b", lambda found: str(file if found[0] == "FILE" else tmp_path / found[0]), spec)
    with pytest.raises(FedpressError, match=re.escape(line)) as error:
        read(words)
    assert "\n" not in str(error.value)


def test_a_call_is_checked_before_anything_is_read() -> None:
    check("folder:/not/there/yet")
    with pytest.raises(SettingError):
        check("/not/there")
