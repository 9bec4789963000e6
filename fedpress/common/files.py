"""Files that are whole whenever they are read."""

import os
from pathlib import Path
from typing import BinaryIO

from fedpress.common.errors import SettingError


def replace(path: Path, data: bytes, *, durable: bool = False, mode: int | None = None) -> None:
    """Write `data` to `path` so that a reader finds the old file or the new one, never a part.

    If `durable`, it has reached the disk when this returns, and so outlives a power cut. With a `mode` the file has it
    before it holds anything.
    """
    part = path.with_name(path.name + ".part")
    try:
        with open_with(part, mode) as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def create(path: Path, data: bytes, mode: int) -> None:
    """Write `data` to `path`, durably and with `mode` from the start; raise FileExistsError if anything is there."""
    with open_with(path, mode, fresh=True) as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            path.unlink()
            raise
    sync_folder(path.parent)


def open_with(path: Path, mode: int | None, *, fresh: bool = False) -> BinaryIO:
    """Open `path` to be written, empty, with `mode`, else what the umask leaves; `fresh` if it must be new."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_EXCL if fresh else os.O_TRUNC)
    handle = os.open(path, flags, 0o666 if mode is None else mode)
    if mode is not None:
        os.fchmod(handle, mode)  # whatever the umask is, or a file left by a crash had
    return os.fdopen(handle, "wb")


def sync_folder(folder: Path) -> None:
    """Bring to the disk which files are in `folder`."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(path: Path) -> None:
    """Make the folder `path` if it is not there; raise SettingError, one line, if that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingError(f"the folder {path} cannot be made: {error.strerror}") from error


def check_folder(path: Path) -> None:
    """Raise SettingError, one line, if the folder `path` is not one to write to and could not become one.

    Nothing is made: this is for the beginning of work that ends with `make_folder`.
    """
    whole = path.resolve()
    there = next(place for place in (whole, *whole.parents) if place.exists())
    if not there.is_dir():
        raise SettingError(f"the folder {path} cannot be made: {there} is a file")
    if not os.access(there, os.W_OK | os.X_OK):
        raise SettingError(f"the folder {path} cannot be written to: {there} does not let you")
