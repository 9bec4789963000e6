"""A folder: one file with x and y, or a sub-folder for each class with an array for each example."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fedpress.client.data.examples import LocalExamples, examples
from fedpress.common.errors import DataError

CLASSES = "classes.txt"
_WHOLE = (".npz", ".safetensors")
_PARTS = (".npy", ".npz")


def read(path: str) -> LocalExamples:
    """Return the examples of a folder; raise DataError if it holds none, or files that do not fit together."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder")
    classes = sorted(part for part in folder.iterdir() if part.is_dir() and not part.name.startswith("."))
    whole = sorted(part for part in folder.iterdir() if part.suffix in _WHOLE)
    if len(whole) == 1 and not classes:
        return _read_whole(whole[0])
    if not classes:
        raise DataError(
            f"{folder} must hold one .npz or .safetensors file, or a sub-folder for each class, got {len(whole)} files"
        )
    labels = _labels(folder, [part.name for part in classes])
    files = [(file, label) for part, label in zip(classes, labels, strict=True) for file in _files(part)]
    if not files:
        raise DataError(f"{folder}: its sub-folders hold no .npy or .npz files")
    return _read_parts(folder, files)


def read_unlabelled(path: str) -> LocalExamples:
    """Return the inputs of all files of arrays in a folder, without their classes: all targets are 0."""
    folder = Path(path).expanduser()
    files = sorted(part for part in folder.rglob("*") if part.suffix in (*_PARTS, *_WHOLE) and part.is_file())
    if not files:
        raise DataError(f"{folder} holds no .npy, .npz or .safetensors files")
    if any(file.suffix == ".safetensors" for file in files):
        if len(files) > 1:
            raise DataError(f"{folder} must hold one .safetensors file, or .npy and .npz files, got {len(files)} files")
        arrays = _load_safetensors(files[0])
        if "x" not in arrays:
            raise DataError(f"{files[0]} must hold x, its examples, got {sorted(arrays)}")
        return examples(str(files[0]), arrays["x"], np.zeros(len(arrays["x"]), np.int64))
    return _read_parts(folder, [(file, 0) for file in files])


def _labels(folder: Path, names: list[str]) -> list[int]:
    """Return the number of each class: its line in `classes.txt` if there is one, else its name, a number."""
    listed = folder / CLASSES
    if listed.is_file():
        order = [line.strip() for line in listed.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        if missing := [name for name in names if name not in order]:
            raise DataError(f"{listed} does not list the sub-folder {missing[0]!r}")
        return [order.index(name) for name in names]
    if unnumbered := [name for name in names if not (name.isascii() and name.isdigit())]:
        raise DataError(
            f"{folder}: sub-folders must be named 0, 1, 2 and so on, or {CLASSES} must list all classes in the order "
            f"that all devices of the federation share, got {unnumbered[0]!r}"
        )
    return [int(name) for name in names]


def _files(folder: Path) -> Iterator[Path]:
    yield from sorted(file for file in folder.iterdir() if file.suffix in _PARTS)


def _read_whole(path: Path) -> LocalExamples:
    arrays = _load_safetensors(path) if path.suffix == ".safetensors" else _load_npz(path)
    if missing := [name for name in ("x", "y") if name not in arrays]:
        raise DataError(f"{path} must hold x and y, got {sorted(arrays)}: {missing[0]} is missing")
    return examples(str(path), arrays["x"], arrays["y"])


def _read_parts(folder: Path, files: list[tuple[Path, int]]) -> LocalExamples:
    """Return the examples of many files, copied once each into one array."""
    sizes = [_size(file) for file, _ in files]
    _, shape, dtype = sizes[0]
    for (file, _), (_, other, kind) in zip(files, sizes, strict=True):
        if other != shape or kind != dtype:
            raise DataError(
                f"{file} must hold {dtype} of shape {shape}, as the files before it, got {kind} of shape {other}"
            )
    x = np.empty((sum(count for count, _, _ in sizes), *shape), dtype)
    y = np.empty(len(x), np.int64)
    at = 0
    for (file, label), (count, _, _) in zip(files, sizes, strict=True):
        x[at : at + count] = _array(file)
        y[at : at + count] = label
        at += count
    return examples(str(folder), x, y)


def _size(path: Path) -> tuple[int, tuple[int, ...], np.dtype]:
    """Return how many examples a file holds, their shape and dtype."""
    if path.suffix == ".npz":
        array = _array(path)
        return len(array), array.shape[1:], array.dtype
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} is no array: {error}") from error
    return 1, array.shape, array.dtype


def _array(path: Path) -> np.ndarray:
    if path.suffix == ".npz":
        arrays = _load_npz(path)
        if "x" not in arrays or arrays["x"].ndim < 1:
            raise DataError(f"{path} must hold x, its examples, got {sorted(arrays)}")
        return arrays["x"]
    array: np.ndarray = np.load(path, allow_pickle=False)
    return array


def _load_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files if name in {"x", "y"}}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is no .npz file of arrays: {error}") from error


def _load_safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise DataError(f"{path} is no .safetensors file: {error}") from error
