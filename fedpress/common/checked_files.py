"""JSON and safetensors files with a checksum of all their bytes, so that one changed bit is noticed.

The checksum is a field of the file itself: the last one of the object in a JSON file, one of the metadata in a
safetensors file. Other programs read both as usual. It is the SHA-256 of the file with zeros in the checksum's place.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fedpress.common.errors import DataError
from fedpress.common.files import replace

_ZEROS = "0" * 64
FIELD = {"checksum": _ZEROS}  # in the metadata, or the object, that `stamped` completes
_FIELD = re.compile(rb'"checksum": ?"([0-9a-f]{64})"')
_LONGEST_END = 200  # bytes in which the last field of a JSON file is looked for
_LAST_FIELD = re.compile(_FIELD.pattern + rb"\s*\}\s*\Z")  # of a whole JSON file, not of an object inside it


@dataclass(frozen=True)
class TensorFile:
    """The content of a safetensors file."""

    arrays: dict[str, np.ndarray]
    metadata: dict[str, str]


def write_json(
    path: Path,
    value: Mapping[str, Any],
    *,
    durable: bool = False,
    indent: int | None = 1,
) -> None:
    """Write `value` and its checksum, in place of a field `checksum` of its own, to a JSON file, atomically."""
    replace(path, stamped_json(value, indent=indent), durable=durable)


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file, its checksum included.

    Raises
    ------
    DataError
        If it cannot be read, is not an object, or its checksum is wrong. A file without a checksum is accepted.
    """
    try:
        value = json.loads(read_checked(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read, it is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} cannot be read: it must hold a JSON object")
    return value


def write_tensors(
    path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None, *, durable: bool = False
) -> None:
    """Write `arrays` and a checksum to a safetensors file, atomically."""
    plain = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    replace(path, stamped(save(plain, {**(metadata or {}), **FIELD})), durable=durable)


def read_tensors(path: Path) -> TensorFile:
    """Return the content of a safetensors file.

    Raises
    ------
    DataError
        If it cannot be read, or its checksum is wrong. A file without a checksum is accepted.
    """
    data = read_checked(path)
    try:
        metadata = json.loads(data[8 : _header_end(data)]).get("__metadata__") or {}
        return TensorFile(load(data), metadata)
    except (SafetensorError, ValueError, KeyError, AttributeError, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def read_checked(path: Path) -> bytes:
    """Return the bytes of a file.

    Raises
    ------
    DataError
        If it cannot be read, or has a checksum that is wrong.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    check(data, str(path))
    return data


def check(data: bytes, name: str) -> None:
    """Raise DataError if the content of a file, which the message calls `name`, has a checksum that is wrong."""
    place = _place(data)
    if place is not None and data[slice(*place)].decode() != _checksum(data, place):
        raise DataError(f"{name} is not what was written: its checksum is wrong")


def digests(folder: Path, *names: str) -> dict[str, str]:
    """Return the SHA-256 of files in `folder`, by name; raise DataError if one cannot be read."""
    found = {}
    for name in names:
        try:
            with (folder / name).open("rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise DataError(f"{folder / name} cannot be read: {error.strerror}") from error
    return found


def stamped_json(value: Mapping[str, Any], *, indent: int | None = 1) -> list[bytes | memoryview]:
    """Return the parts of a JSON file that holds `value` and its checksum."""
    others = {name: each for name, each in value.items() if name not in FIELD}
    return stamped(json.dumps({**others, **FIELD}, indent=indent).encode())


def stamped(data: bytes) -> list[bytes | memoryview]:
    """Return the parts of a JSON or safetensors file that holds FIELD, with its checksum in place of the zeros."""
    place = _place(data)
    if place is None:
        raise ValueError("the data must have a field for the checksum")
    view = memoryview(data)
    return [view[: place[0]], _checksum(data, place).encode(), view[place[1] :]]


def _checksum(data: bytes, place: tuple[int, int]) -> str:
    view, state = memoryview(data), hashlib.sha256()
    for part in (view[: place[0]], _ZEROS.encode(), view[place[1] :]):
        state.update(part)
    return state.hexdigest()


def _place(data: bytes) -> tuple[int, int] | None:
    """Return where the checksum's digits begin and end; None without one."""
    is_json = data[:1] == b"{"  # the length of a safetensors file's header is a multiple of 8, and never begins so
    if is_json:
        last = _LAST_FIELD.search(data, max(0, len(data) - _LONGEST_END))
        return last.span(1) if last else None
    spans = [match.span(1) for match in _FIELD.finditer(data, 8, _header_end(data))]
    return spans[-1] if spans else None


def _header_end(data: bytes) -> int:
    return min(8 + int.from_bytes(data[:8], "little"), len(data))
