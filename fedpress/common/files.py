"""Atomic and durable writing of files."""

import os
from pathlib import Path
from typing import BinaryIO

from fedpress.common.errors import SettingError


def replace(path: Path, data: bytes, *, durable: bool = False, mode: int | None = None) -> None:
    """Write `data` to `path` atomically: a reader finds the old file or the new one, never a part.

    If `durable`, the data is on the disk when this returns, and survives a power cut. A `mode` is set before data is
    written.
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
    """Write `data` durably to a new file with `mode`; raise FileExistsError if `path` exists."""
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
    """Open `path` for writing, truncated, with `mode` or that of the umask; with `fresh` it must not exist."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_EXCL if fresh else os.O_TRUNC)
    handle = os.open(path, flags, 0o666 if mode is None else mode)
    if mode is not None:
        os.fchmod(handle, mode)  # whatever the umask, and the mode of a file that a crash left
    return os.fdopen(handle, "wb")


def sync_folder(folder: Path) -> None:
    """Write the directory entries of `folder` to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(path: Path) -> None:
    """Make the folder `path` if it does not exist; raise SettingError if that fails."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingError(f"the folder {path} cannot be made: {error.strerror}") from error


def check_folder(path: Path) -> None:
    """Raise SettingError if the folder `path` is not writable, or could not be made.

    It makes nothing: use it before long work that ends with `make_folder`.
    """
    absolute = path.resolve()
    existing = next(parent for parent in (absolute, *absolute.parents) if parent.exists())
    if not existing.is_dir():
        raise SettingError(f"the folder {path} cannot be made: {existing} is a file")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise SettingError(f"the folder {path} cannot be written to: {existing} does not let you")
