"""Checkpoints: the whole state of a server after a round, in one file that is written atomically.

FOLDER/round-000012.safetensors   the last two; tensors, and all other state as JSON in the header
FOLDER/versions/                  the models that nodes hold, each under the hash of its tensors
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedpress.common.checked_files import read_tensors, write_tensors
from fedpress.common.errors import DataError
from fedpress.common.files import set_aside
from fedpress.server.checkpointing.object_state import Arrays

KEPT = 2
VERSIONS = "versions"
FORMAT = "5"


@dataclass(frozen=True)
class CheckpointContent:
    """The content of a checkpoint."""

    round: int  # the last one that was finished
    facts: dict[str, Any]  # JSON
    arrays: Arrays


class Checkpoints:
    """The checkpoints in a folder; only the newest are kept."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.versions = folder / VERSIONS
        self.versions.mkdir(parents=True, exist_ok=True)

    @property
    def empty(self) -> bool:
        """Whether there is no checkpoint, readable or not."""
        return next(self._newest(), None) is None

    def save(self, saved: CheckpointContent) -> None:
        """Write a checkpoint durably: it is on the disk when this returns."""
        header = {"format": FORMAT, "round": str(saved.round), "facts": json.dumps(saved.facts)}
        write_tensors(self._path(saved.round), saved.arrays, header, durable=True)
        for path in list(self._newest())[KEPT:]:
            path.unlink(missing_ok=True)

    def load(self) -> CheckpointContent | None:
        """Return the newest checkpoint that is as it was written; newer ones are set aside. None without a checkpoint.

        Raises
        ------
        DataError
            If there are checkpoints and none is as it was written, or it is of another format.
        """
        broken: dict[Path, DataError] = {}
        for path in self._newest():
            try:
                saved = _read(path)
            except DataError as error:
                broken[path] = error
                continue
            for other, reason in broken.items():
                set_aside(other, f"{reason}; {path.name} is used")
            return saved
        if broken:
            reason = next(iter(broken.values()))
            raise DataError(f"no checkpoint in {self._folder} can be read, start again without resuming: {reason}")
        return None

    def _newest(self) -> Iterator[Path]:
        yield from sorted(self._folder.glob("round-*.safetensors"), reverse=True)

    def _path(self, round: int) -> Path:
        return self._folder / f"round-{round:06}.safetensors"


def _read(path: Path) -> CheckpointContent:
    file = read_tensors(path)
    found = file.metadata.get("format")
    if found != FORMAT:
        raise DataError(f"{path} is of format {found}, this reads {FORMAT}")
    return CheckpointContent(int(file.metadata["round"]), json.loads(file.metadata["facts"]), file.arrays)
