"""An SQLite table, read row by row, so that only one copy of the examples is in memory."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import parse_qsl, quote

import numpy as np

from fedpress.client.data.examples import LocalExamples, examples
from fedpress.common.errors import DataError, SettingError, unknown

_OPTIONS = ("table", "x", "y", "dtype", "shape", "newest")
_DTYPES = ("uint8", "int16", "int32", "int64", "float16", "float32", "float64")


def read(rest: str) -> LocalExamples:
    """Return the examples of `PATH?table=NAME&x=COLUMN,...&y=COLUMN&dtype=KIND&shape=N,...&newest=N`.

    One column of x may hold BLOBs, of `dtype` (little-endian) and `shape`; several hold numbers.

    Raises
    ------
    SettingError
        If the options are invalid.
    DataError
        If the file is no database, or its table, columns or values are missing or invalid.
    """
    path, _, query = rest.rpartition("?") if "?" in rest else (rest, "", "")
    options = dict(parse_qsl(query, keep_blank_values=True))
    for name in options:
        if name not in _OPTIONS:
            raise SettingError(unknown("option of sqlite data", name, _OPTIONS))
    if not options.get("table"):
        raise SettingError(f"sqlite data must name its table, sqlite:{path}?table=NAME, got {rest!r}")
    file = Path(path).expanduser()
    if not file.is_file():
        raise DataError(f"{file} is no file")
    where = f"{file}, table {options['table']}"
    newest = _number("newest", options.get("newest", "0"))
    dtype, shape = _dtype(options.get("dtype", "float32")), _shape(options.get("shape", ""))
    try:
        with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True)) as base:
            return _read(base, where, options, dtype, shape, newest)
    except sqlite3.Error as error:
        raise DataError(f"{where}: {error}") from error


def _read(
    base: sqlite3.Connection,
    where: str,
    options: dict[str, str],
    dtype: np.dtype,
    shape: tuple[int, ...],
    newest: int,
) -> LocalExamples:
    table = _name(options["table"])
    known = [row[1] for row in base.execute(f"PRAGMA table_info({table})")]
    if not known:
        raise DataError(f"{where}: there is no such table")
    xs, y = options.get("x", "x").split(","), options.get("y", "y")
    for column in (*xs, y):
        if column not in known:
            raise DataError(f"{where}: {unknown('column', column, known)}")
    columns = ", ".join(map(_name, (*xs, y)))
    part = f"SELECT {columns} FROM {table}"  # noqa: S608  names are quoted, and columns exist
    if newest:
        part = f"SELECT * FROM (SELECT {columns} FROM {table} ORDER BY rowid DESC LIMIT {newest})"  # noqa: S608
    base.execute("BEGIN")  # a transaction, so that count and rows are of the same snapshot
    (count,) = base.execute(f"SELECT COUNT(*) FROM ({part})").fetchone()  # noqa: S608
    first = base.execute(part).fetchone()
    if first is None:
        raise DataError(f"{where}: there are no rows")
    blob = isinstance(first[0], bytes)
    if blob and len(xs) > 1:
        raise DataError(f"{where}: x must be one column of BLOBs or several of numbers, got {len(xs)} columns of BLOBs")
    convert = _blob(first[0], dtype, shape) if blob else _numbers(len(xs), shape)
    kind = dtype if blob else np.dtype(np.float32)
    size = shape or ((len(first[0]) // dtype.itemsize,) if blob else (len(xs),))
    x, targets = np.empty((count, *size), kind.newbyteorder("=")), np.empty(count, np.int64)
    for at, row in enumerate(base.execute(part)):
        try:
            x[at] = convert(row[:-1])
        except (TypeError, ValueError) as error:
            raise DataError(f"{where}: row {at + 1:,}: x must be like the rows before it: {error}") from error
        if type(row[-1]) is not int:
            raise DataError(f"{where}: row {at + 1:,}: {y} must be an integer, the class, got {row[-1]!r}")
        targets[at] = row[-1]
    return examples(where, x, targets)


def _blob(first: bytes, dtype: np.dtype, shape: tuple[int, ...]) -> Callable[[tuple[object, ...]], np.ndarray]:
    size = len(first)

    def convert(values: tuple[object, ...]) -> np.ndarray:
        (data,) = values
        if not isinstance(data, bytes) or len(data) != size:
            raise ValueError(f"it must be a BLOB of {size} bytes")
        array = np.frombuffer(data, dtype.newbyteorder("<"))
        return array.reshape(shape) if shape else array

    return convert


def _numbers(count: int, shape: tuple[int, ...]) -> Callable[[tuple[object, ...]], np.ndarray]:
    def convert(values: tuple[object, ...]) -> np.ndarray:
        if not all(isinstance(value, int | float) for value in values):
            raise ValueError(f"it must be {count} numbers")
        array = np.array(values, np.float32)
        return array.reshape(shape) if shape else array

    return convert


def _name(text: str) -> str:
    """Return a name quoted for SQL."""
    if "\0" in text:
        raise SettingError(f"a name in SQL must not have a zero byte, got {text!r}")
    return '"' + text.replace('"', '""') + '"'


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise SettingError(f"{name} of sqlite data must be an integer of at least 0, got {text!r}")
    return int(text)


def _dtype(text: str) -> np.dtype:
    if text not in _DTYPES:
        raise SettingError(unknown("dtype of sqlite data", text, _DTYPES))
    return np.dtype(text)


def _shape(text: str) -> tuple[int, ...]:
    return tuple(_number("shape", part) for part in text.split(",")) if text else ()
