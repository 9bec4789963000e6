"""Files that survive crashes, power cuts and full disks, and folders that only one process uses."""

import errno
import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TypeVar

from fedpress.common.errors import FolderInUseError, SettingError
from fedpress.common.logs import LOGGER, alert

T = TypeVar("T")
_log = logging.getLogger(LOGGER)
_FULL = {errno.ENOSPC, errno.EDQUOT}
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0  # seconds between two attempts to write to a full disk
_LOCK_PAUSE = 0.05  # seconds between two attempts to lock a folder
_locks: set[int] = set()  # file descriptors of the locks that this process holds


def replace(
    path: Path,
    data: bytes | Iterable[bytes | memoryview],
    *,
    durable: bool = False,
    mode: int | None = None,
    wait: bool = True,
) -> None:
    """Write `data` to `path` atomically: a reader finds the old file or the new one, never a part.

    Parameters
    ----------
    path : Path
        The file.
    data : bytes or iterable of bytes
        Its content; an iterable must be one that can be iterated over again.
    durable : bool
        Whether the data is on the disk when this returns, and survives a power cut.
    mode : int, optional
        The file's mode, set before data is written; that of the umask if None.
    wait : bool
        Whether to wait while the disk is full, until somebody makes room.

    Raises
    ------
    OSError
        If the file cannot be written; the old one is kept.
    """
    if wait:
        return when_there_is_room(path.parent, lambda: replace(path, data, durable=durable, mode=mode, wait=False))
    part = path.with_name(path.name + ".part")
    try:
        with _naming(path):
            with open_with(part, mode) as file:
                file.writelines([data] if isinstance(data, bytes) else data)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)
    return None


def write_tail(path: Path, data: bytes | bytearray, start: int) -> None:
    """Make the file `path` hold `data`, of which it holds the first `start` bytes already."""

    def write() -> None:
        with path.open("r+b" if path.exists() else "wb") as file:
            begin = start if os.fstat(file.fileno()).st_size >= start else 0  # somebody cut or removed it
            file.truncate(begin)
            file.seek(begin)
            file.write(memoryview(data)[begin:])

    when_there_is_room(path.parent, write)


def when_there_is_room(folder: Path, write: Callable[[], T]) -> T:
    """Return what `write` returns; while the disk of `folder` is full, call it again, with longer and longer pauses."""
    pause = _FIRST_PAUSE
    while True:
        try:
            written = write()
        except OSError as error:
            if error.errno not in _FULL:
                raise
            if pause == _FIRST_PAUSE:
                alert(f"{folder} is on a full disk ({error.strerror}): waiting until there is room")
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            continue
        if pause > _FIRST_PAUSE:
            alert(f"{folder} has room again")
        return written


def set_aside(path: Path, reason: object) -> None:
    """Rename a file that is not what was written to `broken-NAME`, and log why."""
    with suppress(FileNotFoundError):
        path.replace(path.with_name(f"broken-{path.name}"))
    _log.warning("%s is not what was written, and is set aside as broken-%s: %s", path, path.name, reason)


@contextmanager
def locked(folder: Path, user: str = "", *, wait: float = 0.0) -> Iterator[int]:
    """Hold the lock of `folder`, which is released when the process ends, however it ends.

    Parameters
    ----------
    folder : Path
        The folder; it must exist.
    user : str
        What uses it, for the message.
    wait : float
        Seconds to wait while another process has the lock.

    Yields
    ------
    int
        The file descriptor of the lock. A process that inherits it shares the lock; a forked one does not.

    Raises
    ------
    FolderInUseError
        If another process has the lock.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    _locks.add(handle)
    try:
        if not _lock(handle, folder, time.monotonic() + wait):
            raise FolderInUseError(f"{folder} is in use by another {user}: wait until it ends, or name another")
        yield handle
    finally:
        if handle in _locks:  # not in a forked process
            _locks.remove(handle)
            os.close(handle)


def _lock(handle: int, folder: Path, deadline: float) -> bool:
    """Lock the folder that is open as `handle`; return False if another process has the lock until the deadline."""
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_LOCK_PAUSE)
            continue
        except OSError as error:  # a file system without locks, such as some network file systems
            _log.warning("%s cannot be locked: make sure that nothing else uses it: %s", folder, error.strerror)
        return True


def _release_in_child() -> None:
    while _locks:
        os.close(_locks.pop())


os.register_at_fork(after_in_child=_release_in_child)


def create(path: Path, data: bytes, mode: int) -> None:
    """Write `data` durably to a new file with `mode`; raise FileExistsError if `path` exists."""
    with _naming(path), open_with(path, mode, fresh=True) as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            path.unlink()
            raise
    sync_folder(path.parent)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Have an OSError name the file, which those of writes do not."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


def open_with(path: Path, mode: int | None, *, fresh: bool = False) -> BinaryIO:
    """Open `path` for writing, truncated, with `mode` or that of the umask; with `fresh` it must not exist."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_EXCL if fresh else os.O_TRUNC)
    handle = os.open(path, flags, 0o666 if mode is None else mode)
    if mode is not None:
        os.fchmod(handle, mode)  # whatever the umask, and the mode of a file that a crash left
    return os.fdopen(handle, "wb")


def sync(paths: Iterable[Path]) -> None:
    """Write files to the disk, and the directory entries of their folders."""
    folders = set()
    for path in paths:
        _fsync(path)
        folders.add(path.parent)
    for folder in folders:
        sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Write the directory entries of `folder` to the disk."""
    _fsync(folder)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def resolved(path: Path) -> Path:
    """Return `path` without links and `~`; raise SettingError for a loop of links, or the home of an unknown user."""
    try:
        return path.expanduser().resolve()
    except RuntimeError as error:
        raise SettingError(f"{path} is not a path that can be used: {error}") from error


def make_folder(path: Path) -> None:
    """Make the folder `path` if it does not exist; raise SettingError if that fails."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingError(f"the folder {path} cannot be made: {error.strerror}") from error


def prepare_file(path: Path) -> None:
    """Make the folder of the output file `path` if it does not exist; raise SettingError if `path` cannot be a file."""
    if path.is_dir():
        raise SettingError(f"{path} is a folder: name a file")
    make_folder(path.parent)


@contextmanager
def output_folder(path: Path, user: str) -> Iterator[None]:
    """Make the folder `path`, and hold its lock; a new one that is left empty is removed.

    Parameters
    ----------
    path : Path
        The folder.
    user : str
        What writes to it, for the message.

    Raises
    ------
    SettingError
        If it cannot be made.
    FolderInUseError
        If another process uses it.
    """
    is_new = not path.exists()
    make_folder(path)
    with locked(path, user):
        try:
            yield
        finally:
            if is_new:
                with suppress(OSError):  # it is not empty
                    path.rmdir()


def check_folder(path: Path) -> None:
    """Raise SettingError if the folder `path` is not writable, or could not be made.

    It makes nothing: use it before long work that ends with `make_folder`.
    """
    absolute = resolved(path)
    existing = next(parent for parent in (absolute, *absolute.parents) if parent.exists())
    if not existing.is_dir():
        raise SettingError(f"the folder {path} cannot be made: {existing} is a file")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise SettingError(f"the folder {path} cannot be written to: {existing} does not let you")
