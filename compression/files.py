"""Files that are whole whenever they are read."""

import os
from pathlib import Path
from typing import BinaryIO


def replace(path: Path, data: bytes, *, durable: bool = False, mode: int | None = None) -> None:
    """Write `data` to `path` so that a reader finds the old file or the new one, never a part.

    If `durable`, it has reached the disk when this returns, and so outlives a power cut. With a `mode` the file has it
    before it holds anything.
    """
    part = path.with_name(path.name + ".part")
    with open_with(part, mode) as file:
        file.write(data)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    part.replace(path)
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
