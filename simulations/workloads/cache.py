"""The folders of data: the one that the run names, else the user's cache."""

import os
from collections.abc import Iterable
from pathlib import Path

from fedpress.common.checked_files import digests, read_json, write_json
from fedpress.common.errors import DataError
from fedpress.settings.simulation import SimulationSettings

_DIGESTS = ".digests"  # of the files that were fetched, SHA-256 by name


def cache() -> Path:
    """Return the folder where fetched data is kept: $XDG_CACHE_HOME/fedpress, else ~/.cache/fedpress."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fedpress"


def named(settings: SimulationSettings) -> Path | None:
    """Return the folder that the setting `data` names, the only one to search then; None if it is empty."""
    return Path(settings.data).expanduser() if settings.data else None


def write_digests(folder: Path, names: Iterable[str]) -> None:
    """Store the digests of files that were fetched to `folder`, for `verify`."""
    write_json(folder / _DIGESTS, {"files": digests(folder, *names)}, durable=True)


def verify(folder: Path) -> None:
    """Raise DataError if a file that was fetched to `folder` is no longer what it was."""
    if not (folder / _DIGESTS).is_file():
        return
    fetched = read_json(folder / _DIGESTS).get("files", {})
    for name, digest in digests(folder, *fetched).items():
        if digest != fetched[name]:
            raise DataError(f"{folder / name} is not what was fetched: delete {folder}, and fetch it again")
