"""The models that nodes hold, kept on disk by version."""

from collections import OrderedDict
from collections.abc import Collection
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save

from fedpress.common.files import replace
from fedpress.compression import Layout, Update
from fedpress.compression.updates import version_of

_RECENT = 4  # models that are kept in memory too


class ModelStore:
    """A folder of models, each under the hash of its tensors.

    At most `limit` bytes are kept: the least recently used model is deleted first, and a node that holds it is then
    sent a key frame.
    """

    def __init__(self, layout: Layout, folder: Path, limit: int) -> None:
        self._layout = layout
        self._limit = limit
        self._folder = folder
        self._stored = OrderedDict((bytes.fromhex(path.stem), None) for path in sorted(folder.glob("*.model")))
        self._recent: OrderedDict[bytes, Update] = OrderedDict()

    def __contains__(self, version: bytes) -> bool:
        return version in self._stored

    def put(self, model: Update) -> bytes:
        """Store `model`; return its version, 8 bytes."""
        version = version_of(model, self._layout)
        if version not in self._stored:
            replace(self._path(version), save({name: np.asarray(a, order="C") for name, a in model.items()}))
            self._stored[version] = None
        self._remember(version, model)
        return version

    def get(self, version: bytes) -> Update:
        """Return the model of this version; raise KeyError if it is not stored."""
        self._stored.move_to_end(version)
        model = self._recent.get(version)
        if model is None:
            model = load_file(self._path(version))
        self._remember(version, model)
        return model

    def retain(self, needed: Collection[bytes], lasting: Collection[bytes] = ()) -> None:
        """Delete versions that are neither `needed` nor `lasting`, and needed ones beyond the limit."""
        room = self._limit // max(1, self._layout.nbytes) - len(set(lasting))
        fits = [version for version in reversed(self._stored) if version in needed and version not in lasting]
        kept = {*fits[: max(0, room)], *lasting}
        for version in [version for version in self._stored if version not in kept]:
            del self._stored[version]
            self._recent.pop(version, None)
            self._path(version).unlink(missing_ok=True)

    def _path(self, version: bytes) -> Path:
        return self._folder / f"{version.hex()}.model"

    def _remember(self, version: bytes, model: Update) -> None:
        self._stored.move_to_end(version)
        self._recent[version] = model
        self._recent.move_to_end(version)
        while len(self._recent) > _RECENT:
            self._recent.popitem(last=False)
