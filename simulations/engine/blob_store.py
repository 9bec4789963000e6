"""Objects as bytes, with large arrays stored once, in files that processes share.

A model that is sent to ten nodes, or is the base of a thousand, is one file. Small objects are part of the pickle.
"""

import hashlib
import io
import os
import pickle
import secrets
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fedpress.common.files import sync, when_there_is_room
from fedpress.protocol.records import LARGE

_KEPT = 4  # blobs that a process keeps in memory


class Blobs:
    """A folder of blobs.

    Pickle is safe here: both ends are processes of one engine, on one machine, and no other writes to the folder.

    Parameters
    ----------
    folder : Path
        The folder.
    lasting : bool
        Whether blobs are named by their hashes, so that equal ones are one file. Those that are only sent on are
        numbered, as hashing would take longer: the same object is then one file, equal objects are not.
    """

    def __init__(self, folder: Path, *, lasting: bool) -> None:
        self._folder = folder
        self._lasting = lasting
        self._series = secrets.token_hex(8)  # names of this process's own
        self._count = 0
        self._recent: OrderedDict[str, bytes] = OrderedDict()

    def dump(self, thing: object) -> tuple[bytes, frozenset[str]]:
        """Return `thing` as bytes, and the names of its blobs."""
        out = io.BytesIO()
        pickler = _Pickler(out, self)
        pickler.dump(thing)
        return out.getvalue(), frozenset(pickler.names)

    def load(self, data: bytes) -> Any:
        """Return a copy of the dumped object; only immutable blobs are shared."""
        return _Unpickler(io.BytesIO(data), self).load()

    def forget(self, names: set[str]) -> None:
        """Delete blobs."""
        for name in names:
            (self._folder / name).unlink(missing_ok=True)
            self._recent.pop(name, None)

    def put(self, data: bytes) -> str:
        """Store `data` and return its name."""
        for name, known in self._recent.items():
            if known is data:
                return name
        if self._lasting:
            name = _hash(data)
        else:
            self._count += 1
            name = f"{self._series}{self._count:016x}"
        path = self._folder / name
        if not path.exists():
            part = self._folder / f"{name}.{os.getpid()}"
            if self._lasting:
                when_there_is_room(self._folder, lambda: part.write_bytes(data))
            else:
                part.write_bytes(data)
            part.replace(path)
        self._remember(name, data)
        return name

    def get(self, name: str) -> bytes:
        """Return the blob `name`."""
        data = self._recent.get(name)
        if data is None:
            data = (self._folder / name).read_bytes()
        self._remember(name, data)
        return data

    def sync(self, names: Iterable[str]) -> None:
        """Write blobs to the disk."""
        sync(self._folder / name for name in names)

    def is_intact(self, name: str) -> bool:
        """Return whether the lasting blob `name` is there and is what was written."""
        try:
            return _hash((self._folder / name).read_bytes()) == name
        except OSError:
            return False

    def _remember(self, name: str, data: bytes) -> None:
        self._recent[name] = data
        self._recent.move_to_end(name)
        while len(self._recent) > _KEPT:
            self._recent.popitem(last=False)


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


class _Pickler(pickle.Pickler):
    def __init__(self, out: io.BytesIO, blobs: Blobs) -> None:
        super().__init__(out, pickle.HIGHEST_PROTOCOL)
        self._blobs = blobs
        self.names: set[str] = set()

    def persistent_id(self, obj: object) -> str | None:
        if type(obj) is not bytes or len(obj) < LARGE:
            return None
        name = self._blobs.put(obj)
        self.names.add(name)
        return name


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: io.BytesIO, blobs: Blobs) -> None:
        super().__init__(data)
        self._blobs = blobs

    def persistent_load(self, pid: str) -> bytes:
        return self._blobs.get(pid)
