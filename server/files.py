"""Files that are whole whenever they are read."""

import os
from pathlib import Path

from fedpress.compression.errors import SettingError


def replace(path: Path, data: bytes, *, durable: bool = False) -> None:
    """Write `data` to `path` so that a reader finds the old file or the new one, never a part.

    If `durable`, it has reached the disk when this returns, and so outlives a power cut.
    """
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(data)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    part.replace(path)
    if durable:
        sync_folder(path.parent)


def make_folder(path: Path) -> None:
    """Make the folder `path` if it is not there; raise SettingError, one line, if that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingError(f"the folder {path} cannot be made: {error.strerror}") from error


def sync_folder(folder: Path) -> None:
    """Bring to the disk which files are in `folder`."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
