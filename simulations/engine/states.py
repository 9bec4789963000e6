"""The states of nodes between messages: on disk, each under the hash of what it is, large arrays once for all nodes."""

import base64
import json
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fedpress.simulations.engine.blobs import LARGE, Blobs

_KINDS: dict[str, type] = {"metrics": MetricRecord, "config": ConfigRecord}
_SNAPSHOTS = 2  # that can be restored


class States:
    """A worker's view: loads a node's state, and writes a changed one."""

    def __init__(self, folder: Path) -> None:
        self._blobs = Blobs(folder, lasting=True)

    def load(self, name: str) -> RecordDict:
        """Return the state of this name; empty if it has none."""
        return _read(self._blobs.get(name), self._blobs) if name else RecordDict()

    def write(self, state: RecordDict, old: str) -> tuple[str, frozenset[str]] | None:
        """Write the state that follows the one named `old`; None if it is the same.

        Returns its name, and all the blobs that belong to it. It counts once the engine has the reply and commits it:
        a worker that dies on the way leaves the state as it was.
        """
        if not state and not old:
            return None
        data, names = _write(state, self._blobs)
        name = self._blobs.put(data)
        return None if name == old else (name, frozenset({name, *names}))


class Ledger:
    """The engine's view: which node's state is where, and where it was at the last snapshots."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._blobs = Blobs(folder, lasting=True)
        self._heads: dict[int, tuple[str, frozenset[str]]] = {}
        self._snapshots: deque[dict[int, tuple[str, frozenset[str]]]] = deque(maxlen=_SNAPSHOTS)

    def head(self, node: int) -> str:
        """Return the name of the node's state; empty if it has none yet."""
        return self._heads[node][0] if node in self._heads else ""

    def commit(self, node: int, state: tuple[str, frozenset[str]] | None) -> None:
        """Put the state that a worker wrote in place of the node's old one; None leaves the old one."""
        if state is not None:
            self._heads[node] = state

    def collect(self) -> None:
        """Delete what no node refers to. No worker may be writing: it might be about to refer to it again."""
        heads = (head for held in (self._heads, *self._snapshots) for head in held.values())
        alive = set().union(*(names for _, names in heads))
        self._blobs.forget({path.name for path in self._folder.iterdir()} - alive)

    def snapshot(self) -> dict[str, list[str]]:
        """Return where every node's state is, as JSON; it can be restored until two more are taken."""
        self._snapshots.append(dict(self._heads))
        return {str(node): [head, *sorted(names - {head})] for node, (head, names) in self._heads.items()}

    def restore(self, snapshot: Mapping[str, list[str]]) -> None:
        """Put every node's state back to what it was."""
        self._heads = {int(node): (names[0], frozenset(names)) for node, names in snapshot.items()}
        self._snapshots.append(dict(self._heads))


def _write(state: RecordDict, blobs: Blobs) -> tuple[bytes, list[str]]:
    """Return `state` as JSON, and the names of the blobs in which its large arrays are."""
    names = []
    rows: list[list[Any]] = []
    for key, record in state.items():
        if isinstance(record, ArrayRecord):
            arrays = []
            for name, array in record.items():
                large = len(array.data) >= LARGE
                data = blobs.put(array.data) if large else base64.b64encode(array.data).decode()
                names += [data] if large else []
                arrays.append([name, array.dtype, list(array.shape), array.stype, large, data])
            rows.append([key, "arrays", arrays])
        else:
            kind = "metrics" if isinstance(record, MetricRecord) else "config"
            rows.append([key, kind, {name: _bare(value) for name, value in record.items()}])
    return json.dumps(rows).encode(), names


def _read(data: bytes, blobs: Blobs) -> RecordDict:
    state = RecordDict()
    for key, kind, value in json.loads(data):
        if kind == "arrays":
            state[key] = ArrayRecord(
                {
                    name: Array(dtype, tuple(shape), stype, blobs.get(text) if large else base64.b64decode(text))
                    for name, dtype, shape, stype, large, text in value
                }
            )
        else:
            state[key] = _KINDS[kind]({name: _full(item) for name, item in value.items()})
    return state


def _bare(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    return [_bare(item) for item in value] if isinstance(value, list) else value


def _full(value: Any) -> Any:
    if isinstance(value, dict):
        return base64.b64decode(value["bytes"])
    return [_full(item) for item in value] if isinstance(value, list) else value
