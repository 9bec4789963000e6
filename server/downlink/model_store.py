"""The models that nodes hold, kept on disk by version."""

import re
from collections import OrderedDict
from collections.abc import Collection
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from fedpress.common.files import replace, set_aside, sync
from fedpress.compression import Layout, Update
from fedpress.compression.updates import version_of

_RECENT = 4  # models that are kept in memory too
_NAME = re.compile(r"[0-9a-f]{16}\.model")


class ModelStore:
    """A folder of models, each under the hash of its tensors.

    At most `limit` bytes are kept: the least recently used model is deleted first, and a node that holds it is then
    sent a key frame. So is a node whose model was in the folder before and is no longer what its name says.
    """

    def __init__(self, layout: Layout, folder: Path, limit: int) -> None:
        self._layout = layout
        self._limit = limit
        self._folder = folder
        self._stored: OrderedDict[bytes, None] = OrderedDict()
        self._recent: OrderedDict[bytes, Update] = OrderedDict()
        for path in sorted(folder.glob("*.model")):
            if _NAME.fullmatch(path.name):
                self._stored[bytes.fromhex(path.stem)] = None
            elif not path.name.startswith("broken-"):
                set_aside(path, "it is not named after a version")
        self._unverified = set(self._stored)  # of an earlier process
        self._unsynced: set[bytes] = set()

    def __contains__(self, version: bytes) -> bool:
        if version in self._unverified:
            self._verify(version)
        return version in self._stored

    def put(self, model: Update) -> bytes:
        """Store `model`; return its version, 8 bytes."""
        version = version_of(model, self._layout)
        if version not in self:
            replace(self._path(version), save({name: np.asarray(a, order="C") for name, a in model.items()}))
            self._stored[version] = None
            self._unsynced.add(version)
        self._remember(version, model)
        return version

    def get(self, version: bytes) -> Update:
        """Return the model of this version; raise KeyError if it is not stored."""
        if version not in self:
            raise KeyError(version.hex())
        model = self._recent.get(version)
        if model is None:
            model = load_file(self._path(version))
        self._remember(version, model)
        return model

    def sync(self) -> None:
        """Write the stored models to the disk: before this they may not survive a power cut."""
        sync(self._path(version) for version in self._unsynced if version in self._stored)
        self._unsynced.clear()

    def retain(self, needed: Collection[bytes], lasting: Collection[bytes] = ()) -> None:
        """Delete versions that are neither `needed` nor `lasting`, and needed ones beyond the limit."""
        room = self._limit // max(1, self._layout.nbytes) - len(set(lasting))
        fits = [version for version in reversed(self._stored) if version in needed and version not in lasting]
        kept = {*fits[: max(0, room)], *lasting}
        for version in [version for version in self._stored if version not in kept]:
            self._path(version).unlink(missing_ok=True)
            self._drop(version)

    def _verify(self, version: bytes) -> None:
        """Set the model of this version aside if its tensors are not those that it is named after."""
        self._unverified.discard(version)
        path = self._path(version)
        try:
            found = load_file(path)
            model = {tensor.name: found[tensor.name] for tensor in self._layout.tensors}
            if Layout.of(model) == self._layout and version_of(model, self._layout) == version:
                return self._remember(version, model)
            reason = "its hash is not its name"
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            reason = str(error)
        self._drop(version)
        return set_aside(path, reason)

    def _drop(self, version: bytes) -> None:
        del self._stored[version]
        self._recent.pop(version, None)
        self._unverified.discard(version)

    def _path(self, version: bytes) -> Path:
        return self._folder / f"{version.hex()}.model"

    def _remember(self, version: bytes, model: Update) -> None:
        self._stored.move_to_end(version)
        self._recent[version] = model
        self._recent.move_to_end(version)
        while len(self._recent) > _RECENT:
            self._recent.popitem(last=False)
