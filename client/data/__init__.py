"""A device's local data: a folder, an SQLite table, or a Python object, named in one line.

In goes `folder:PATH`, `sqlite:PATH?table=NAME&x=COLUMN&y=COLUMN` or `python:MODULE:OBJECT`; out come examples as
tensors, or an error of one line. Nothing here leaves the device. Another kind of source is one module with a `read`,
and a line in the table below.
"""

from collections.abc import Callable
from functools import lru_cache

from fedpress.client.data import folder, source, table
from fedpress.client.data.examples import LocalExamples
from fedpress.common.errors import SettingError, unknown

__all__ = ["LocalExamples", "check", "read"]

KINDS: dict[str, Callable[[str], LocalExamples]] = {"folder": folder.read, "sqlite": table.read, "python": source.read}


def check(spec: str) -> None:
    """Raise SettingError unless `spec` names a kind of data."""
    kind, colon, rest = spec.partition(":")
    if not colon or not rest:
        raise SettingError(f"data must be folder:PATH, sqlite:PATH?table=NAME or python:MODULE:OBJECT, got {spec!r}")
    if kind not in KINDS:
        raise SettingError(unknown("kind of data", kind, KINDS))


@lru_cache(maxsize=1)
def read(spec: str) -> LocalExamples:
    """Return the data that `spec` names, read once per process.

    Raises
    ------
    SettingError
        If `spec` names no kind of data.
    DataError
        If the data is missing or invalid.
    """
    check(spec)
    kind, _, rest = spec.partition(":")
    return KINDS[kind](rest)
