"""Checkpoints: the whole state of a server after a round, in one file that is written atomically.

FOLDER/round-000012.safetensors   the last two; tensors, and all other state as JSON in the header
FOLDER/versions/                  the models that nodes hold, each under the hash of its tensors
"""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fedpress.common.errors import DataError
from fedpress.common.files import replace
from fedpress.common.logs import LOGGER
from fedpress.server.checkpointing.object_state import Arrays

_log = logging.getLogger(LOGGER)

KEPT = 2
VERSIONS = "versions"
FORMAT = "3"


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
        replace(self._path(saved.round), save(saved.arrays, header), durable=True)
        for path in list(self._newest())[KEPT:]:
            path.unlink(missing_ok=True)

    def load(self) -> CheckpointContent | None:
        """Return the newest checkpoint that can be read; None if there is none.

        Raises
        ------
        DataError
            If there are checkpoints and none can be read.
        """
        paths = list(self._newest())
        for path in paths:
            try:
                with safe_open(path, "numpy") as file:
                    header = file.metadata() or {}
                    if header.get("format") != FORMAT:
                        raise DataError(f"{path} is of format {header.get('format')}, this reads {FORMAT}")
                    arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a mapping
                return CheckpointContent(int(header["round"]), json.loads(header["facts"]), arrays)
            except (SafetensorError, OSError, KeyError, ValueError) as error:
                _log.warning("the checkpoint %s cannot be read, an older one is used: %s", path.name, error)
        if paths:
            raise DataError(f"no checkpoint in {self._folder} can be read: start again without resuming")
        return None

    def _newest(self) -> Iterator[Path]:
        yield from sorted(self._folder.glob("round-*.safetensors"), reverse=True)

    def _path(self, round: int) -> Path:
        return self._folder / f"round-{round:06}.safetensors"
